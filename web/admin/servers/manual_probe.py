"""A round of probes on demand."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import trio

from fleet.common.errors import ServerNotFound
from fleet.common.times import milliseconds
from fleet.scheduling import server_words
from fleet.scheduling.server_state import Health
from web.admin.kit.answers import MS, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("checkup", "A round of probes on demand.")

PATIENCE: Final = 30.0
"""Seconds a round of probes may take at the most."""

_AT_ONCE: Final = 4
_APART: Final = 0.005
"""Seconds between the beginnings of so many probes."""


class ProbedJson(JsonObject, kw_only=True):
    """One server after its probe."""

    id: str
    healthy: Annotated[bool, "whether this probe found it well"]
    status: str
    reason: str
    last_response_time: MS | None
    models: Annotated[int, "in its last known inventory"]


class ProbesAnswer(Answer, kw_only=True):
    """All servers."""

    servers: list[ProbedJson]


@topic.post(
    "/health-check",
    "Probe all servers now, side by side, and wait for the verdicts (30 s at the most).",
)
async def health_check(asked: AdminRequest) -> ProbesAnswer:
    system, limits = asked.system, asked.system.config.health
    within = min(max(limits.tags_timeout, limits.ps_timeout, limits.version_timeout) + 1.0, PATIENCE)
    cells = list(system.servers.values())
    answered: set[str] = set()
    async with trio.open_nursery() as nursery:
        for number, cell in enumerate(cells, 1):
            nursery.start_soon(partial(_probe, system, cell, within, answered))
            if number % _AT_ONCE == 0:  # a thousand probes begun in one turn would stop everybody else for a second
                await trio.sleep(_APART)
    return ProbesAnswer(servers=[_checked(cell, cell.state.id in answered, within) for cell in cells])


async def _probe(system: System, cell: ServerCell, within: float, answered: set[str]) -> None:
    verdict = cell.probed
    try:
        await system.probe(cell.state.id, within)
    except ServerNotFound:
        return
    if verdict.is_set():
        answered.add(cell.state.id)


def _checked(cell: ServerCell, answered: bool, within: float) -> ProbedJson:
    state = cell.state
    reason = state.why
    if not answered:
        reason = f"no verdict within {within:g} s"
    elif state.health is Health.HEALTHY and state.failed_rounds:
        reason = f"{state.failed_rounds} probes in a row have failed"
    return ProbedJson(
        id=state.id,
        healthy=answered and state.health is Health.HEALTHY and not state.failed_rounds,
        status=server_words.word_of(state, server_words.API),
        reason=reason,
        last_response_time=milliseconds(state.last_response),
        models=len(state.models),
    )
