"""What those who watch are shown: put together from the cells, in pieces, so that streams go first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from actors.observability.dashboard.events import complaints
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.times import iso_read
from fleet.models.jobs import JobKind, JobState
from fleet.models.model_matrix import columns, line, places
from fleet.observability.dashboard.live_figures import LiveFigures
from fleet.observability.dashboard.server_rows import Around, ServerStatus, rounded, row
from fleet.observability.dashboard.snapshot import FleetSnapshot
from fleet.observability.health_summary.summary import Level
from fleet.scheduling.bans import BanKind

if TYPE_CHECKING:
    from actors.observability.dashboard.sources import FeedSources
    from actors.state.servers import ServerCell

YOUNG: Final = 0.15
"""Seconds for which a state is as good as new: who joins in between gets the same."""
_TURN: Final = 25
"""Servers that are looked at before others get a turn."""
_DRIFT: Final = 0.5
"""Seconds by which the wall clock may move against ours before moments are told anew."""
_TROUBLED: Final = (Level.WARN, Level.CRIT)


class Collector:
    """Reads the fleet. It listens to finished requests only while somebody watches."""

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources
        self._fleet = sources.fleet
        self._offset = 0.0
        self._made: FleetSnapshot | None = None
        self._made_at = 0.0
        self._making = trio.Lock()

    def rest(self) -> None:
        """Nobody watches: forget."""
        self._sources.live.rest()

    async def collect(self) -> FleetSnapshot:
        """The state of now, or of a moment ago. A checkpoint in any case; cancelled: nothing has changed."""
        async with self._making:
            now = self._fleet.clock.now()
            if self._made is None or now - self._made_at >= YOUNG:
                self._made, self._made_at = await self._collect(now), now
            return self._made

    async def _collect(self, now: float) -> FleetSnapshot:
        fleet = self._fleet
        await fleet.statistics.request_log.catch_up()
        figures = self._sources.live.begun(fleet.statistics.request_log, self._sources.started)
        figures.settle(now)
        self._set_offset()
        waiting = Counter(ticket.model for ticket in fleet.scheduler.tickets.values() if ticket.open)
        servers, models, matrix = await self._servers(figures, figures.span(now), waiting)
        return FleetSnapshot(
            timestamp=iso_read(fleet.clock.wall()),
            metrics=self._metrics(figures, figures.span(now), sum(waiting.values())),
            ollama_status=self._word(),
            fleet=self._summary(figures, figures.span(now)),
            servers=servers,
            models=models,
            matrix=matrix,
        )

    # ---- servers

    async def _servers(
        self, figures: LiveFigures, span: float, waiting: Mapping[ModelName, int]
    ) -> tuple[dict[str, dict[str, Any]], tuple[str, ...], dict[str, str]]:
        cells = list(self._fleet.servers.values())
        models = columns([cell.state for cell in cells])
        place, warming, told = places(models), self._warming(), complaints(self._sources.monitor)
        rows, matrix = {}, {}
        for number, cell in enumerate(cells):
            state = cell.state
            around = self._around(cell, told.get(state.id))
            rows[str(state.id)] = row(state, around, figures.of(state.id), span, waiting)
            matrix[str(state.id)] = line(state, place, warming.get(state.id, ()))
            if number % _TURN == _TURN - 1:
                await trio.lowlevel.checkpoint()
        return rows, tuple(map(str, models)), matrix

    def _around(self, cell: ServerCell, complaint: ServerStatus | None) -> Around:
        return Around(
            epoch=self._epoch,
            probe_at=cell.probe_at,
            drain_timeout=self._fleet.config.current.drain_timeout,
            opened=partial(self._opened, cell.state.id),
            complaint=complaint,
        )

    def _opened(self, server: ServerId, model: str) -> float | None:
        pair = Pair(server, ModelName(model))
        if (since := self._sources.monitor.opened(pair)) is not None:
            return since
        view = self._sources.breakers.get(pair)
        return None if view is None else view.since

    def _warming(self) -> dict[ServerId, list[ModelName]]:
        found: dict[ServerId, list[ModelName]] = {}
        for job in self._sources.jobs.of(JobKind.WARM, active=True):
            if job.state is JobState.RUNNING:
                found.setdefault(job.server, []).append(job.key[1])
        return found

    # ---- the fleet

    def _metrics(self, figures: LiveFigures, span: float, waiting: int) -> dict[str, Any]:
        host = self._sources.host.latest
        return {
            "active_requests": self._fleet.servers.in_flight,
            "queue_size": waiting,
            "avg_latency": rounded(figures.fleet.latency),
            "tokens_per_second": round(figures.fleet.tokens / span, 1),
            "cpu_percent": None if host is None else _tenths(host.cpu_percent),
            "memory_percent": None if host is None else _tenths(host.memory_percent),
            "gpu_percent": None if host is None else _tenths(host.gpu_percent),
            "power_watts": None if host is None else _tenths(host.watts),
        }

    def _summary(self, figures: LiveFigures, span: float) -> dict[str, Any]:
        fleet, verdict, memory = self._fleet, self._sources.monitor.verdict, self._fleet.scheduler.memory
        paused = memory.paused_since if memory.paused else None
        states = [state for _, state, _ in self._sources.breakers.states()]
        first = self._sources.monitor.traffic.first
        return {
            "verdict": verdict.level.value,
            "code": verdict.code,
            "headline": verdict.headline,
            "since": round(verdict.since, 3),
            "subjects": list(verdict.subjects),
            "rps": round(figures.fleet.count / span, 2),
            "err": rounded(figures.fleet.error_rate),
            "ttft_p50": rounded(first.p50) if first.count else None,
            "ttft_p95": rounded(first.p95) if first.count else None,
            "up": sum(cell.state.usable for cell in fleet.servers.values()),
            "total": len(fleet.servers),
            "breakers_open": states.count(BreakerState.OPEN),
            "bans": sum(ban.kind is BanKind.BAN for ban in fleet.scheduler.bans.list(fleet.clock.now())),
            "paused": None if paused is None else self._epoch(paused),
        }

    def _word(self) -> str:
        if not any(cell.state.usable for cell in self._fleet.servers.values()):
            return "unhealthy"
        return "degraded" if self._sources.monitor.verdict.level in _TROUBLED else "healthy"

    # ---- within

    def _epoch(self, moment: float) -> float:
        """Epoch seconds of a moment; the same each time, or every delta would tell it anew."""
        return round(moment + self._offset, 3)

    def _set_offset(self) -> None:
        fleet = self._fleet
        offset = fleet.clock.wall() - fleet.clock.now()
        if abs(offset - self._offset) > _DRIFT:
            self._offset = offset


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
