"""Changes by request: what differs, what is kept, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from fleet.config import Config, ConfigError, Loaded
from fleet.config.live.diff import Change, amended, diff, only, servers_layer
from fleet.config.live.restart_keys import KEYS
from fleet.config.loading.layers import over, overlaid
from fleet.config.loading.sourced_value import SourcedValue
from tests.fleet.config.config_kit import loaded
from tests.fleet.config.test_properties import CONFIGS, MARK

STARS = "**********"
FILE = """
servers:
  - {id: a, url: "http://a:1", api_key: "env:A_KEY", tags: [old]}
  - {id: b, url: "http://b:1"}
security:
  api_keys: ["env:MY_KEY", "plain-key-2"]
  keys: [{name: ci, role: client, key: "ci-key-123"}]
queue: {max_size: 5}
"""
ENV = {"A_KEY": "secret-of-a", "MY_KEY": "secret-of-mine"}


def base() -> Loaded:
    return loaded(FILE, ENV)


def changed(mapping: Mapping[str, object]) -> Config:
    return amended(base(), mapping)[0].config


def refused(mapping: Mapping[str, object]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        amended(base(), mapping)
    return {problem.path: problem.message for problem in caught.value.problems}


def paths(before: Config, after: Config) -> list[str]:
    return [change.path for change in diff(before, after)]


def shown(config: Config) -> dict[str, Any]:
    """As GET /config shows it."""
    return config.model_dump(mode="json", by_alias=True)


# ---- what differs


def test_a_difference_says_before_after_and_when_it_acts() -> None:
    after = changed({"queue": {"maxSize": 7}, "server": {"host": "::1"}})
    assert diff(base().config, after) == [
        Change("server.host", "127.0.0.1", "::1"),
        Change("queue.max_size", 5, 7),
    ]
    assert [change.effect for change in diff(base().config, after)] == ["restart", "now"]


def test_servers_differ_by_their_ids_not_by_their_places() -> None:
    others = [{"id": "c", "url": "http://c:1"}, {"id": "a", "url": "http://a:1", "apiKey": STARS, "tags": ["new"]}]
    found = {change.path: (change.before, change.after) for change in diff(base().config, changed({"servers": others}))}
    assert set(found) == {"servers.a.tags", "servers.b", "servers.c"}
    assert found["servers.a.tags"] == (["old"], ["new"])
    assert found["servers.b"][1] is None
    assert found["servers.c"][1]["url"] == "http://c:1"


def test_no_difference_shows_a_secret() -> None:
    after = changed({"security": {"apiKeys": ["another-key-9"]}, "servers": []})
    text = repr(diff(base().config, after))
    assert STARS in text
    for secret in ("secret-of", "plain-key", "another-key"):
        assert secret not in text


@given(CONFIGS, CONFIGS)
def test_a_difference_names_exactly_the_keys_that_a_change_needs(before: Config, after: Config) -> None:
    assert diff(before, before) == []
    names = paths(before, after)
    assert (not names) == (
        before.model_copy(update={"servers": ()}) == after.model_copy(update={"servers": ()})
        and {s.id: s for s in before.servers} == {s.id: s for s in after.servers}
    )
    assert len(set(names)) == len(names)
    assert all(name in KEYS or name.startswith("servers.") for name in names)
    assert MARK not in repr(diff(before, after))


@given(CONFIGS)
def test_what_the_api_shows_can_be_sent_back_and_changes_nothing(config: Config) -> None:
    given_all = config.model_dump(exclude_unset=False)
    start = overlaid(
        Loaded(config, {}, SourcedValue({}, "")), over(SourcedValue({}, ""), _tree(given_all)), [], source="f"
    )
    new, layer = amended(start, shown(config))
    assert new.config == config
    assert layer.plain() == {}


def _tree(plain: Any) -> SourcedValue:
    from fleet.config.loading.sourced_value import from_python

    return from_python(plain, "f.yml")


# ---- what a request may say


def test_a_redacted_secret_stays_what_it_was() -> None:
    everything = shown(base().config)
    everything["queue"]["maxSize"] = 9
    new, layer = amended(base(), everything)
    assert paths(base().config, new.config) == ["queue.max_size"]
    assert layer.plain() == {"queue": {"max_size": 9}}
    assert new.config.servers == base().config.servers


def test_a_redacted_key_may_move_with_its_name_or_keep_its_place() -> None:
    keys = [{"name": "new", "role": "admin", "key": "brand-new-key"}, {"name": "ci", "role": "operator", "key": STARS}]
    after = changed({"security": {"apiKeys": [STARS, "plain-key-3"], "keys": keys}}).security
    assert [key.get_secret_value() for key in after.api_keys] == ["secret-of-mine", "plain-key-3"]
    assert after.keys[1].key is not None
    assert (after.keys[1].key.get_secret_value(), after.keys[1].role) == ("ci-key-123", "operator")


@pytest.mark.parametrize(
    ("mapping", "path"),
    [
        ({"security": {"apiKeys": [STARS, STARS, STARS]}}, "security.api_keys.2"),
        ({"security": {"keys": [{"name": "other", "key": STARS}]}}, "security.keys.0.key"),
        ({"servers": [{"id": "b", "url": "http://b:1", "apiKey": STARS}]}, "servers.0.api_key"),
    ],
)
def test_stars_that_stand_for_nothing_are_refused(mapping: dict[str, object], path: str) -> None:
    assert refused(mapping) == {path: "is redacted, and there is nothing that it could stand for"}


def test_a_key_does_not_follow_its_server_to_another_machine() -> None:
    moved = {"servers": [{"id": "a", "url": "http://evil.example:1", "apiKey": STARS}]}
    assert refused(moved) == {"servers.0.api_key": "must be given again, because the URL changes"}
    same = changed({"servers": [{"id": "a", "url": "http://A:1/", "apiKey": STARS}]}).servers[0]
    assert same.api_key is not None
    assert same.api_key.get_secret_value() == "secret-of-a"


def test_a_request_cannot_read_the_environment() -> None:
    found = refused({"servers": [{"id": "c", "url": "http://evil.example:1", "apiKey": "env:MY_KEY"}]})
    assert list(found) == ["servers.0.api_key"]


def test_a_request_cannot_move_the_directory_it_is_confined_to() -> None:
    assert list(refused({"reload": {"directory": "/"}})) == ["reload.directory"]
    assert changed({"reload": {"directory": "", "watch": False}}).reload.watch is False


def test_every_problem_is_listed_by_its_path() -> None:
    found = refused(
        {"queue": {"maxSize": -1, "typo": 1}, "retry": {"maxAttempts": "soon"}, "placement": {"builder": "z"}}
    )
    assert {"queue.max_size", "queue.typo", "retry.max_attempts"} <= set(found)


def test_of_the_ports_two_names_the_one_that_was_changed_counts() -> None:
    now = base().config.orchestrator_port
    for mapping in (
        {"port": 5101, "server": {"orchestratorPort": now}},
        {"port": now, "server": {"orchestratorPort": 5101}},
    ):
        after = changed(mapping)
        assert (after.port, after.server.orchestrator_port) == (5101, 5101)
    assert "port" in refused({"port": 5101, "server": {"orchestratorPort": 5102}})


def test_what_changes_nothing_leaves_no_trace() -> None:
    _, layer = amended(base(), {"queue": {"maxSize": 5, "ageingSeconds": 3}, "servers": []})
    assert layer.plain() == {"queue": {"ageing_seconds": 3}}
    assert only(layer, {"queue.max_size"}).plain() == {}


# ---- servers from elsewhere


def test_servers_of_the_api_lie_over_those_of_the_file_and_the_others_stay_as_written() -> None:
    a, b = base().config.servers
    more = a.model_copy(update={"id": "c", "url": "http://c:1"})
    layer = servers_layer(base(), (a, b.model_copy(update={"priority": 7}), more))
    new = overlaid(base(), layer, [], source="f.yml")
    assert [spec.id for spec in new.config.servers] == ["a", "b", "c"]
    assert new.config.servers[1].priority == 7
    first = layer.value["servers"].value[0]
    assert first.value["api_key"].raw == "env:A_KEY"
    assert servers_layer(base(), (a, b)).value == {}


def test_a_changed_server_keeps_the_reference_to_its_key() -> None:
    a, _ = base().config.servers
    layer = servers_layer(base(), (a.model_copy(update={"max_concurrency": 9}),))
    assert layer.value["servers"].value[0].value["api_key"].raw == "env:A_KEY"
