"""Reading text: line numbers, YAML's traps, and files that mean harm."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fleet.config import ConfigError
from fleet.config.loading.sourced_value import scalar
from fleet.config.loading.yaml_reader import read_text
from tests.fleet.config.config_kit import config, loaded, messages, problems

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if hasattr(yaml, "CSafeLoader") else [])]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("y", "y"), ("1:30", "1:30"), ("010", 10), ("0o10", 8),
        ("0x1F", 31), ("1_000", "1_000"), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("+7", 7), ("-7", -7), ("~", None),
        ("", None), ("null", None), ("true", True), ("FALSE", False), ("2024-01-01", "2024-01-01"), ("١", "١"),
        (".", "."), ("-.inf", float("-inf")), ("9" * 5000, "9" * 5000), ("=", "="), ("1e", "1e"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = scalar(text, "").value
    assert found == value
    assert type(found) is type(value)


def test_text_fields_get_what_was_written() -> None:
    c = config(
        "servers:\n- {id: 007, url: http://x, tags: [no, 1.0, 1:30, true, 0x1F]}\n"
        "security: {api_keys: [0123456789, 1e3000000]}"
    )
    assert c.servers[0].id == "007"
    assert c.servers[0].tags == ("no", "1.0", "1:30", "true", "0x1F")
    assert [key.get_secret_value() for key in c.security.api_keys] == ["0123456789", "1e3000000"]


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("on", True), ("no", False), ("off", False), ("'no'", False)]
)
def test_truth_values_still_understand_words(word: str, value: bool) -> None:
    assert config(f"enable_queue: {word}").enable_queue is value


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "~", "{}", "\ufeff", "queue:\nservers:\ncors: {origins: }"]
)
def test_nothing_is_the_default(text: str) -> None:
    assert config(text) == config(None)


def test_json_is_yaml() -> None:
    text = '{\n\t"port": 5200,\n\t"servers": [\n\t\t{"id": "a", "url": "http:\\/\\/x"}]\n}'
    assert config(text).servers[0].url == "http://x"


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("port: 1\n\nport: 2", 3, '"port" twice, first in line 1'),
        ("queue: {a: 1,\n a: 2}", 2, '"a" twice'),
        ("- 1", 1, "must hold sections"),
        ("\nhello", 2, "must hold sections"),
        ("a: 1\nb: ]\n", 2, "no valid YAML"),
        ("a: b: c", 1, "no valid YAML"),
        ("a: 1\n---\nb: 1", 2, "another document"),
        ("? [a]\n: 1", 1, "not a simple word"),
        ("a: !!python/object:os.system x", 1, "tag"),
        ("a: !hunter2 x", 1, "tag"),
        ("key: *hunter2", 1, "quote text that begins with"),
        ("a: &a [*a]", 1, "alias"),
        ("a: &hunter2 1\nb: &hunter2 2", 2, "anchor|unknown"),
        ("a: " + "[" * 21 + "]" * 21, 1, "too deeply"),
        ("[" * 100_000, 1, "too deeply"),
        ("a: [" + "1," * 60_000 + "]", 1, "too many"),
    ],
)
def test_refused_files(loader: Any, text: str, line: int, words: str) -> None:
    if "unknown" in words and loader is not yaml.SafeLoader:
        words = words.split("|")[0]
    with pytest.raises(ConfigError, match=words) as caught:
        read_text(text, "f.yml", loader=loader)
    (problem,) = caught.value.problems
    assert problem.source == f"f.yml:{line}"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("text", ["\x00", "a: \ud800", "a: \x1b[0m", "a" * (2**20 + 1)])
def test_what_is_no_text_is_refused(loader: Any, text: str) -> None:
    with pytest.raises(ConfigError):
        read_text(text, "f.yml", loader=loader)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_bomb_of_aliases_does_not_go_off(loader: Any) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(ConfigError, match="too many"):
        read_text("\n".join(lines), "f.yml", loader=loader)


@pytest.mark.parametrize("loader", LOADERS)
def test_depth_hidden_in_aliases_is_found(loader: Any) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [[[[[*a{n - 1}]]]]]" for n in range(1, 50)]
    with pytest.raises(ConfigError, match="too deeply"):
        read_text("\n".join(lines), "f.yml", loader=loader)


def test_honest_aliases_work() -> None:
    c = config("servers:\n- {id: a, url: http://a, tags: &t [gpu]}\n- {id: b, url: http://b, tags: *t}")
    assert c.servers[1].tags == ("gpu",)


def test_lines_are_kept() -> None:
    found = loaded("queue:\n  max_size: 5\n\nservers:\n  - id: a\n    url: http://x\n").origins
    assert found["queue.max_size"] == "f.yml:2"
    assert found["servers.0.url"] == "f.yml:6"
    assert found["servers.0.priority"] == "default"
    assert {each.source for each in problems("queue:\n  max_size: -1\n  huh: 1")} == {"f.yml:2", "f.yml:3"}


def test_a_missing_key_points_at_its_server() -> None:
    (problem,) = problems("servers:\n  - id: x\n")
    assert (problem.path, problem.source) == ("servers.0.url", "f.yml:2")


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("serverr: {}", "serverr", "did you mean server?"),
        ("loadbalancer: {}", "loadbalancer", "did you mean load_balancer?"),
        ("queue: {maxsize: 1}", "queue.maxsize", "did you mean max_size?"),
        ("servers: [{id: a, url: http://x, apikey: hunter2}]", "servers.0.apikey", "did you mean api_key?"),
        ("proxy_port: 1", "proxy_port", "did you mean server.proxy_port?"),
        ("load_balancer: {weights: {latencyy: 1}}", "load_balancer.weights.latencyy", "did you mean latency?"),
        ("xyzzy: 1", "xyzzy", "unknown key"),
        ('"a\\e[31m\\nb": 1', '"a\\u001b[31m\\nb"', "unknown key"),
        ("logging: {format: jsno}", "logging.format", '"jsno"; did you mean json?'),
        ("queue: hunter2", "queue", "a section"),
        ("servers: hunter2", "servers", "a list"),
        ("timeouts: {idle: }", "timeouts.idle", "has no value"),
        ("timeouts: {idle: 30s}", "timeouts.idle", "a number of seconds from 0.001 to 604800"),
        ("server: {proxy_port: 70000}", "server.proxy_port", "a whole number from 0 to 65535, not 70000"),
        ("server: {proxy_port: 1.5}", "server.proxy_port", "not 1.5"),
        ("server: {proxy_port: true}", "server.proxy_port", "not true"),
        ("enable_queue: maybe", "enable_queue", "true or false"),
        ("security: {api_keys: hunter2hunter2}", "security.api_keys", "a list"),
        ("security: {api_keys: [12345]}", "security.api_keys.0", "8 to 4096 characters"),
    ],
)
def test_messages_name_the_field_and_the_fix(text: str, path: str, words: str) -> None:
    found = messages(text)
    assert list(found) == [path]
    assert words in found[path]
    assert "hunter2" not in found[path]
    assert "12345" not in found[path]
