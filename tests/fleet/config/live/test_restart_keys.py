"""When a change of a key acts, and what a running process keeps until it is started again."""

from __future__ import annotations

import pytest
from hypothesis import given

from fleet.config import Config
from fleet.config.live.restart_keys import KEYS, NOW, RESTART, awaiting_restart, effect_of, held, value_at
from tests.fleet.config.test_properties import CONFIGS


def test_every_key_of_the_model_is_in_one_of_the_two_tables() -> None:
    assert set(KEYS) - NOW - RESTART == set(), "say in fleet/config/live/restart_keys.py when a change of these acts"
    assert (NOW | RESTART) - set(KEYS) == set(), "these are no keys"
    assert not NOW & RESTART


@pytest.mark.parametrize(
    ("path", "effect"),
    [
        ("servers.gpu.url", "now"),
        ("servers", "now"),
        ("queue.max_size", "now"),
        ("port", "restart"),
        ("new", "restart"),
    ],
)
def test_a_key_that_nobody_has_classified_waits_for_a_restart(path: str, effect: str) -> None:
    assert effect_of(path) == effect


@given(CONFIGS, CONFIGS)
def test_a_running_process_keeps_what_it_was_started_with_and_follows_in_all_else(wanted: Config, was: Config) -> None:
    now = held(wanted, was)
    for path in KEYS:
        assert value_at(now, path) == value_at(was if effect_of(path) == "restart" else wanted, path), path
    assert awaiting_restart(wanted, now) == awaiting_restart(wanted, was)
    assert awaiting_restart(was, now) == []
    assert held(wanted, now) == now
