"""The gate: what the dispatcher may do with a verdict."""

from __future__ import annotations

import pytest

from fleet.breakers.gate import Gate, GateState


@pytest.mark.parametrize(
    ("state", "limit", "admitted"), [(GateState.OPEN, 0, 5), (GateState.LIMITED, 2, 2), (GateState.SHUT, 0, 0)]
)
def test_a_gate_lets_through_what_its_state_allows(state: GateState, limit: int, admitted: int) -> None:
    gate = Gate()
    gate.show(state, limit=limit)
    said, done = [], []
    for _ in range(5):
        said.append(gate.admits)
        done.append(gate.take())
    assert said == done
    assert done.count(True) == admitted
    assert gate.refused == 5 - admitted


def test_permits_come_back_but_never_more_than_went_out() -> None:
    gate = Gate()
    gate.show(GateState.LIMITED, limit=2)
    assert not gate.give_back()
    assert gate.take()
    assert gate.trials_out == 1
    assert gate.give_back()
    assert not gate.give_back()
    assert gate.permits == 2


def test_an_open_gate_takes_nothing_back() -> None:
    gate = Gate()
    assert gate.take()
    assert not gate.give_back()
    assert (gate.permits, gate.trials_out) == (0, 0)


def test_a_new_state_is_a_new_generation_with_all_permits_in() -> None:
    gate = Gate()
    gate.show(GateState.LIMITED, limit=3)
    gate.take()
    gate.show(GateState.LIMITED, limit=3)
    assert (gate.generation, gate.permits) == (1, 2)
    gate.show(GateState.SHUT, retry_at=7.0)
    assert (gate.generation, gate.permits, gate.trials_out, gate.retry_at) == (2, 0, 0, 7.0)
    gate.show(GateState.LIMITED, limit=3)
    assert (gate.generation, gate.permits) == (3, 3)
