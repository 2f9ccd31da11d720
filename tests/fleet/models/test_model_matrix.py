"""The map of models: one letter per server and model, and what each letter says."""

from __future__ import annotations

from typing import Any

from fleet.breakers.gate import Gate, GateState
from fleet.common.ids import ModelName, ServerId
from fleet.config import ServerSpec
from fleet.models.model_matrix import WORDS, columns, line, places
from fleet.scheduling.server_state import ServerState


def server(*models: str, resident: tuple[str, ...] = (), **more: Any) -> ServerState:
    state = ServerState(ServerSpec(id=ServerId("a"), url="http://127.0.0.1:1"))
    state.models = {ModelName(model): {} for model in models}
    state.resident = {ModelName(model): {} for model in resident}
    for name, value in more.items():
        setattr(state, name, value)
    return state


def test_every_state_has_its_letter() -> None:
    names = tuple(ModelName(name) for name in "abcdefgh")
    state = server(*"bcdefgh", resident=("d", "e", "f", "h"))
    state.ledger.open(1, ModelName("e"))
    half, shut = Gate(), Gate()
    half.show(GateState.LIMITED, limit=1)
    shut.show(GateState.SHUT)
    state.gates = {ModelName("f"): half, ModelName("g"): shut, ModelName("d"): Gate()}
    state.barred = {ModelName("h")}
    assert line(state, places(names), [ModelName("c")]) == " .~#@/x!"
    assert [*WORDS] == [*" .~#@/x!"]


def test_what_is_no_column_is_no_letter() -> None:
    state = server("a", "z", resident=("z",))
    state.ledger.open(1, ModelName(""))
    assert line(state, places([ModelName("a")])) == "."
    assert line(state, {}) == ""


def test_columns_are_all_models_by_name() -> None:
    assert columns([server("b", "a"), server("c", "a")]) == ("a", "b", "c")
    assert columns([]) == ()


def test_with_too_many_models_the_rare_and_cold_ones_are_left_out() -> None:
    states = [server("everywhere", "rare", "hot", resident=("hot",)), server("everywhere"), server("everywhere")]
    assert columns(states, 2) == ("everywhere", "hot")
    assert columns(states, 1) == ("hot",)
