"""Snapshots and deltas: whatever changed, a client that applies them has the state; what did not change is not sent."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.observability.dashboard.delta import apply, delta
from fleet.observability.dashboard.snapshot import FleetSnapshot, read, snapshot

names = st.text(min_size=1, max_size=4)
lists = st.lists(st.integers(0, 3), max_size=2)
numbers = st.one_of(st.integers(-5, 5), st.floats(0, 2, width=16))
values: st.SearchStrategy[Any] = st.one_of(st.none(), numbers, st.text(max_size=3), lists)
FIELDS = ("state", "why", "since", "inflight", "vram")
rows = st.fixed_dictionaries(dict.fromkeys(FIELDS, values))


@st.composite
def states(draw: st.DrawFn) -> FleetSnapshot:
    servers = draw(st.dictionaries(names, rows, max_size=5))
    models = tuple(draw(st.lists(names, max_size=4, unique=True)))
    line = st.text(alphabet=" .~#@/x!", min_size=len(models), max_size=len(models))
    return FleetSnapshot(
        timestamp=draw(st.sampled_from(("t1", "t2"))),
        metrics=draw(st.fixed_dictionaries({"active_requests": values, "avg_latency": values})),
        ollama_status=draw(st.sampled_from(("healthy", "degraded", "unhealthy"))),
        fleet=draw(st.fixed_dictionaries({"rps": values, "headline": values, "paused": values})),
        servers=servers,
        models=models,
        matrix={server: draw(line) for server in servers},
    )


def sent(message: dict[str, Any]) -> Any:
    """As it arrives."""
    return orjson.loads(orjson.dumps(message))


@given(states(), states())
def test_old_and_delta_make_new(old: FleetSnapshot, new: FleetSnapshot) -> None:
    assert apply(old, sent(delta(old, new))) == new


@given(states())
def test_a_snapshot_is_read_as_what_it_was(state: FleetSnapshot) -> None:
    assert read(sent(snapshot(state))) == state


@given(states())
def test_nothing_changed_means_next_to_nothing_sent(state: FleetSnapshot) -> None:
    message = delta(state, state)
    assert (message["fleet"], message["servers"], message["matrix"]) == ({}, {}, {})
    assert "models" not in message
    assert message["metrics"] == state.metrics, "always whole, for clients that know nothing of deltas"


@settings(max_examples=50)
@given(st.lists(states(), min_size=2, max_size=8))
def test_a_chain_of_deltas_ends_at_the_last_state(chain: list[FleetSnapshot]) -> None:
    state = read(sent(snapshot(chain[0])))
    for old, new in pairwise(chain):
        state = apply(state, sent(delta(old, new)))
    assert state == chain[-1]


def state_of(servers: dict[str, Any], models: tuple[str, ...] = ("m",), **matrix: str) -> FleetSnapshot:
    return FleetSnapshot("t", {"active_requests": 0}, "healthy", {"rps": 1.0}, servers, models, matrix)


def test_null_means_gone_for_a_server_and_unknown_for_a_field() -> None:
    old = state_of({"a": {"tps": 3, "why": "x"}, "b": {"tps": 1, "why": "y"}}, a=".", b=".")
    new = state_of({"a": {"tps": None, "why": "x"}}, a=".")
    message = delta(old, new)
    assert message["servers"] == {"a": {"tps": None}, "b": None}
    assert message["matrix"] == {"b": None}
    assert apply(old, message).servers == {"a": {"tps": None, "why": "x"}}


def test_a_new_server_comes_with_all_its_fields() -> None:
    old, new = state_of({}), state_of({"a": {"tps": None, "why": "x"}}, a="#")
    assert delta(old, new)["servers"] == {"a": {"tps": None, "why": "x"}}
    assert delta(old, new)["matrix"] == {"a": "#"}


def test_other_models_bring_the_whole_matrix() -> None:
    old = state_of({"a": {}, "b": {}}, ("m",), a=".", b="#")
    new = state_of({"a": {}, "b": {}}, ("m", "n"), a=". ", b="# ")
    message = delta(old, new)
    assert message["models"] == ("m", "n")
    assert message["matrix"] == {"a": ". ", "b": "# "}


def test_a_line_that_looks_the_same_under_other_models_is_sent_too() -> None:
    old, new = state_of({"a": {}}, ("m",), a="."), state_of({"a": {}}, ("n",), a=".")
    assert delta(old, new)["matrix"] == {"a": "."}
    assert apply(old, delta(old, new)) == new
