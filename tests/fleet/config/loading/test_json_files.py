"""Files that end in .json are JSON; what is not is read as YAML, so that its problems have lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from bench.growth.measure import MOST, Case, grown
from fleet.config import Config, ConfigError, load
from tests.fleet.config.test_properties import CONFIGS, revealed


def read(text: str) -> Config:
    return load(text, {}, {}, source="f.json").config


@given(CONFIGS)
def test_every_configuration_survives_json(config: Config) -> None:
    assert read(json.dumps(revealed(config.model_dump()), indent="\t")) == config


def test_what_yaml_cannot_read_in_json_is_read() -> None:
    tags = '{\n\t"servers": [{"id": "a", "url": "http://a:1", "tags": ["\\ud83e\\udd99", "\\/"]}]}'
    assert read(tags).servers[0].tags == ("🦙", "/")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"queue": {}, "queue": {}}', "twice"),
        ("[]", "must hold an object"),
        ('{"queue": {"max_size": 1e999}}', "queue.max_size"),
        ("[" * 100_000, "nested too deeply"),
        ('{"cors": {"origins": [' + "1," * 60_000 + "1]}}", "too many values"),
        ('{"queue": {"max_size": ' + "9" * 5000 + "}}", "queue.max_size"),
        ('{"queue": {"max_size": NaN}}', "queue.max_size"),
        ("x" * (2**20 + 1), "is longer"),
        ('{"queue":\n {"max_size": 5', "f.json:"),
    ],
)
def test_what_cannot_be_a_configuration_is_said_in_a_sentence(text: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert any(what in str(problem) for problem in caught.value.problems), caught.value


def test_a_file_that_is_yaml_after_all_is_read_as_such() -> None:
    assert read("queue:\n  max_size: 5\n").queue.max_size == 5


def test_a_name_that_comes_twice_among_very_many_is_found_at_once() -> None:
    def twice(names: int) -> str:
        return "{" + ",".join(f'"k{number}": 1' for number in [*range(names), names - 1]) + "}"

    def refused(text: str) -> None:
        with pytest.raises(ConfigError, match="twice"):
            read(text)

    growth = grown(Case("twice", 20_000, twice, refused))  # each held against all others took ten seconds
    assert growth.ratio <= MOST, growth
