"""Saved files: they say what was wanted, keep their comments, and hold no secret of the environment."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import Config, ConfigError, load
from fleet.config.live.diff import amended, diff, servers_layer
from fleet.config.live.yaml_writer import draft, saved
from fleet.config.loading.layers import file_layer
from fleet.config.loading.sourced_value import SourcedValue
from tests.fleet.config.test_properties import CONFIGS, revealed
from tests.kit.places import ROOT

SHIPPED = (ROOT / "config.yml").read_text(encoding="utf-8")
NOTHING = SourcedValue({}, "")


def save(
    text: str | None, changes: Mapping[str, object], env: Mapping[str, str] | None = None, name: str = "f.yml"
) -> str:
    """The file after a change by request."""
    loaded = load(text, env or {}, {}, source=name)
    new, layer = amended(loaded, changes)
    servers = servers_layer(loaded, new.config.servers).value.get("servers") if "servers" in changes else None
    wanted = draft(file_layer(text, env or {}, source=name), layer, servers)
    return saved(text, wanted, env or {}, source=name)


def differing(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


EDITS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"queue": {"maxSize": 7}},
        ["-  max_size: 1000              # requests", "+  max_size: 7                 # requests"],
    ),
    ({"monitoring": {"maxConcurrentRequests": 9}}, ["+  max_concurrent_requests: 9"]),
    ({"placement": {"builder": "local"}}, ["+  builder: local"]),
    ({"cors": {"origins": ["https://x"]}}, None),  # type: ignore[list-item]  # counted below
]


@pytest.mark.parametrize(("changes", "lines"), EDITS)
def test_only_the_lines_of_changed_keys_change(changes: dict[str, Any], lines: list[str] | None) -> None:
    found = differing(SHIPPED, save(SHIPPED, changes))
    if lines is None:
        assert len(found) == 2
        assert "# for example" in found[1]
    else:
        assert found == lines


def test_a_port_is_saved_under_the_name_that_the_file_has() -> None:
    for name in ("port", "server"):
        changes: dict[str, object] = {"port": 5101} if name == "port" else {"server": {"orchestratorPort": 5101}}
        text = save("server:\n  orchestrator_port: 5100  # here\n", changes)
        assert text == "server:\n  orchestrator_port: 5101  # here\n"
        assert save("port: 5100  # here\n", changes) == "port: 5101  # here\n"


def test_keys_are_found_however_they_are_spelled() -> None:
    text = "loadBalancer:\n  candidates: 5 # five\ntimeouts: {load: 7}\n"
    after = save(text, {"load_balancer": {"candidates": 6}, "timeouts": {"firstByte": 8}})
    assert after == "loadBalancer:\n  candidates: 6 # five\ntimeouts: {load: 8}\n"


SERVERS = """# ours
servers:
  # the big one
  - id: a
    url: http://a:1   # in the cellar
    api_key: env:A_KEY
  # the small one
  - id: b
    url: http://b:1
queue:
  max_size: 5
"""


def test_servers_are_edited_one_by_one() -> None:
    stars = "**********"
    wanted = [
        {"id": "a", "url": "http://a:1", "apiKey": stars, "priority": 3},
        {"id": "c", "url": "http://c:1", "tags": ["no", "yes"]},
    ]
    after = save(SERVERS, {"servers": wanted}, {"A_KEY": "the-key"})
    for kept in ("# ours", "# the big one", "# in the cellar", "env:A_KEY"):
        assert kept in after
    assert "the-key" not in after
    assert "http://b:1" not in after
    servers = load(after, {"A_KEY": "the-key"}, {}, source="f").config.servers
    assert [(spec.id, spec.priority, spec.tags) for spec in servers] == [("a", 3, ()), ("c", 1, ("no", "yes"))]


def test_aliases_do_not_spread_a_change() -> None:
    text = "servers:\n- {id: a, url: 'http://a:1', tags: &t [x]}\n- {id: b, url: 'http://b:1', tags: *t}\n"
    wanted = [{"id": "a", "url": "http://a:1", "tags": ["y"]}, {"id": "b", "url": "http://b:1", "tags": ["x"]}]
    servers = load(save(text, {"servers": wanted}), {}, {}, source="f").config.servers
    assert [spec.tags for spec in servers] == [("y",), ("x",)]


@pytest.mark.parametrize(
    "text", ["", "# nothing but words\n", "queue:\n", "{}\n", "---\nqueue: {}\n", '{"queue": {"max_size": 3}}']
)
def test_any_file_can_be_saved_into(text: str) -> None:
    after = save(text, {"queue": {"maxSize": 7}, "retry": {"max_attempts": 2}})
    config = load(after, {}, {}, source="f").config
    assert (config.queue.max_size, config.retry.max_attempts) == (7, 2)


# ---- secrets


def test_a_reference_to_the_environment_stays_a_reference() -> None:
    text = 'security:\n  api_keys: ["env:MY_KEY"]\n'
    after = save(text, {"security": {"apiKeys": ["**********", "another-key"]}}, {"MY_KEY": "s3cret-of-mine"})
    assert "s3cret" not in after
    assert load(after, {"MY_KEY": "s3cret-of-mine"}, {}, source="f").config.security.api_keys[1].get_secret_value() == (
        "another-key"
    )
    assert "env:MY_KEY" in after


def test_a_secret_that_a_variable_gave_directly_is_left_out_and_told() -> None:
    env = {"FLEET_SECURITY__API_KEYS": "s3cret-of-mine"}
    loaded = load(None, env, {}, source="f.yml")
    _, layer = amended(loaded, {"security": {"apiKeys": ["**********", "another-key"]}})
    wanted = draft(NOTHING, layer)
    assert wanted.left_out == ["security.api_keys.0"]
    text = saved(None, wanted, env, source="f.yml")
    assert "s3cret" not in text
    assert "another-key" in text
    assert "s3cret" not in repr(wanted)


# ---- whole files


def test_json_is_saved_as_json() -> None:
    text = save('{"queue": {"maxSize": 3}}', {"retry": {"maxAttempts": 2}}, name="f.json")
    assert json.loads(text) == {"queue": {"max_size": 3}, "retry": {"max_attempts": 2}}


def test_what_is_no_configuration_is_not_written_over() -> None:
    wanted = draft(NOTHING, NOTHING)
    with pytest.raises(ConfigError):
        saved("services:\n  web: {}\n", wanted, {}, source="compose.yml")


@given(
    CONFIGS,
    st.sampled_from(["f.yml", "f.json"]),
    st.sampled_from([None, "", SHIPPED, "# hm\nqueue:\n  max_size: 3 # x\n"]),
)
def test_whatever_is_saved_loads_as_the_same(config: Config, name: str, old: str | None) -> None:
    if old is not None and name == "f.json":
        old = None
    text = json.dumps(revealed(config.model_dump()))
    given_all = file_layer(text, {}, source="all.json")
    after = saved(old, draft(given_all, NOTHING), {}, source=name)
    assert load(after, {}, {}, source=name).config == config


@given(CONFIGS, CONFIGS)
def test_what_a_request_changed_is_there_after_save_and_load(before: Config, after: Config) -> None:
    text = save(None, {}) if before == Config() else json.dumps(revealed(before.model_dump()))
    changes = revealed(after.model_dump(exclude={"servers", "reload", "port"}))
    loaded = load(text, {}, {}, source="f.json")
    try:
        new, layer = amended(loaded, changes)
    except ConfigError:
        return  # the two do not go together
    yaml = saved(None, draft(file_layer(text, {}, source="f.json"), layer), {}, source="f.yml")
    assert diff(load(yaml, {}, {}, source="f.yml").config, new.config) == []
