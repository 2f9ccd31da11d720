"""Where each model is, as one line of letters per server: the map of the dashboard, small on the wire.

    (space)  the server does not have the model
    .        on its disk ("cold")
    ~        being loaded by order (a warm-up)
    #        in its memory
    @        serving a request now
    /        its breaker is half-open
    x        its breaker is open
    !        banned, or resting after a failure

The last that holds is shown. Letters are ASCII so that a column is a byte. Of a server that is down it is what was
last known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fleet.breakers.gate import GateState

if TYPE_CHECKING:
    from fleet.common.ids import ModelName
    from fleet.scheduling.server_state import ServerState

ABSENT: Final = " "
COLD: Final = "."
WARMING: Final = "~"
LOADED: Final = "#"
SERVING: Final = "@"
HALF_OPEN: Final = "/"
OPEN: Final = "x"
BANNED: Final = "!"
WORDS: Final[Mapping[str, str]] = {
    ABSENT: "not there",
    COLD: "on disk",
    WARMING: "being loaded",
    LOADED: "in memory",
    SERVING: "serving",
    HALF_OPEN: "breaker half-open",
    OPEN: "breaker open",
    BANNED: "kept away",
}
MOST_MODELS: Final = 1000
"""Columns. What few servers have, and none has in memory, is left out first."""


def columns(states: Sequence[ServerState], most: int = MOST_MODELS) -> tuple[ModelName, ...]:
    """The models of all servers, by name."""
    known: dict[ModelName, int] = {}
    for state in states:
        for model in state.models:
            known[model] = known.get(model, 0) + 1
    if len(known) > most:
        for state in states:
            for model in state.resident:
                if model in known:
                    known[model] += len(states)
        known = dict.fromkeys(sorted(known, key=lambda model: (-known[model], model))[:most], 0)
    return tuple(sorted(known))


def places(models: Iterable[ModelName]) -> dict[ModelName, int]:
    """Which column is whose."""
    return {model: place for place, model in enumerate(models)}


def line(state: ServerState, place: Mapping[ModelName, int], warming: Iterable[ModelName] = ()) -> str:
    """One server's line. `warming`: what is being loaded there by order."""
    letters = [ABSENT] * len(place)
    _put(letters, place, state.models, COLD)
    _put(letters, place, warming, WARMING)
    _put(letters, place, state.resident, LOADED)
    _put(letters, place, state.ledger.models(), SERVING)
    if state.gates:
        for model, gate in state.gates.items():
            if gate.state is not GateState.OPEN:
                _put(letters, place, (model,), OPEN if gate.state is GateState.SHUT else HALF_OPEN)
    _put(letters, place, state.barred, BANNED)
    return "".join(letters)


def _put(letters: list[str], place: Mapping[ModelName, int], models: Iterable[ModelName], letter: str) -> None:
    for model in models:
        at = place.get(model)
        if at is not None:
            letters[at] = letter
