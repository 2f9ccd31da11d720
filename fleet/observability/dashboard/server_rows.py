"""One server in a snapshot: how it is, why, since when, what comes next, and its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fleet.breakers.gate import GateState
from fleet.common import wording as say
from fleet.scheduling.server_state import Admin, Health
from fleet.scheduling.server_words import DASHBOARD, word_of

if TYPE_CHECKING:
    from fleet.observability.dashboard.live_figures import FigureSums
    from fleet.scheduling.server_state import ServerState

DIGITS: Final = 3
"""After the point: of seconds and of shares."""
LONGEST: Final = 300
"""Characters of why a server is as it is."""


class ServerStatus(NamedTuple):
    """How a server is: `ok`, `warn`, `crit`, `unknown`, `draining`, `drained`, `maintenance`. Epoch seconds."""

    state: str
    why: str
    since: float | None
    next: float | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What a server's own state does not say. `epoch` makes epoch seconds of a moment on the fleet's clock.

    `probe_at` is such a moment, `drain_timeout` is in seconds. `opened` says since when a model's breaker is open
    (None: unknown). `complaint` is what an alert says about the server, already in epoch seconds.
    """

    epoch: Callable[[float], float]
    probe_at: float | None = None
    drain_timeout: float = math.inf
    opened: Callable[[str], float | None] = lambda model: None
    complaint: ServerStatus | None = None


def standing(state: ServerState, around: Around) -> ServerStatus:
    """What the operator says comes before what the probes say; then breakers and alerts."""
    if state.admin is not Admin.ACTIVE:
        return _ordered(state, around)
    since, word = around.epoch(state.since), word_of(state, DASHBOARD)
    if state.health is Health.UNKNOWN:
        return ServerStatus(word, state.why, since)
    if state.health is Health.UNHEALTHY:
        return ServerStatus(word, state.why, since, _moment(around, around.probe_at))
    shut = [model for model, gate in state.gates.items() if gate.state is GateState.SHUT] if state.gates else []
    if shut:
        return _shut(state, around, shut)
    return around.complaint or ServerStatus(word, state.why, since)


def row(
    state: ServerState, around: Around, figures: FigureSums, span: float, waiting: Mapping[Any, int]
) -> dict[str, Any]:
    """The server's fields; figures are over `span` seconds, None is "not known". `waiting` is who waits, by model."""
    stands = standing(state, around)
    return {
        "state": stands.state,
        "why": say.line(stands.why.removeprefix(f"{state.id}: "), LONGEST),  # whose row it is can be seen
        "since": stands.since,
        "next": stands.next,
        "inflight": state.in_use,
        "slots": int(state.capacity),
        "queue": sum(number for model, number in waiting.items() if model in state.models),
        "tps": round(figures.tokens / span, 1) if figures.count else None,
        "ttft": rounded(figures.first_byte(0.5)),
        "p95": rounded(figures.first_byte(0.95)),
        "err": rounded(figures.error_rate),
        "vram": [state.vram, None],
        "hot": len(state.resident),
        "models": len(state.models),
    }


def rounded(value: float | None) -> float | None:
    """Three digits after the point."""
    return None if value is None else round(value, DIGITS)


def _ordered(state: ServerState, around: Around) -> ServerStatus:
    since = around.epoch(state.admin_since or state.added)
    if state.admin is Admin.MAINTENANCE:
        return ServerStatus(state.admin.value, state.admin_why, since, _moment(around, state.until))
    draining = state.admin is Admin.DRAINING
    until = state.admin_since + around.drain_timeout if draining else None
    left = f"{say.plural(state.in_use, 'request')} left" if draining else "drained"
    told = state.admin_why
    why = told if told.startswith(left) else f"{left}: {told}" if told else left
    return ServerStatus(state.admin.value, why, since, _moment(around, until))


def _shut(state: ServerState, around: Around, models: list[Any]) -> ServerStatus:
    first = min(models)
    more = f" and {len(models) - 1} more" if len(models) > 1 else ""
    opened = min((at for model in models if (at := around.opened(model)) is not None), default=None)
    retry = min(state.gates[model].retry_at for model in models)
    return ServerStatus("warn", f"breaker open: {first}{more}", _moment(around, opened), _moment(around, retry))


def _moment(around: Around, moment: float | None) -> float | None:
    return around.epoch(moment) if moment is not None and 0 < moment < math.inf else None
