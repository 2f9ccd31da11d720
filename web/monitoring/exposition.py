"""What `/metrics` answers: written once for all who ask at the same time, off the event loop's back."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from actors.observability.metrics_gauges import ModelCounts, snapshot
from actors.system import System
from fleet.common.errors import FleetError
from fleet.observability.metrics.snapshot import Family
from web.http.units import take_turns
from web.http.version import own_version
from web.monitoring.exposition_text import OPENMETRICS, TEXT, Writer, compressed

_SHARE: Final = 20
"""For how many times as long as it took to write them figures are shared: whoever asks, one core gives a twentieth."""
_LONGEST: Final = 1.0
PATIENCE: Final = 10.0
"""Seconds, after which nobody reads an answer any more: Prometheus waits that long by default."""

Kind = tuple[str, bool]
"""Content type, and whether it is compressed."""


class MetricsUnavailable(FleetError):
    """The figures could not be written down in time."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "METRICS_UNAVAILABLE"


class Exposition:
    """One per fleet. Whoever comes while others wait gets what they get, and figures are at most a second old."""

    def __init__(self, share: float = _SHARE) -> None:
        self._share = share
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._writers = {kind: Writer(kind) for kind in (TEXT, OPENMETRICS)}
        self._families: list[Family] = []
        self._made: dict[Kind, bytes] = {}
        self._looked = self._until = -math.inf

    async def latest(self, system: System, content_type: str, *, zipped: bool) -> bytes:
        """The exposition. Raises MetricsUnavailable. Cancelled: others who wait get theirs all the same."""
        with trio.move_on_after(PATIENCE):
            async with self._turn:
                return await self._shared(system, (content_type, zipped))
        raise MetricsUnavailable("the metrics could not be written down in time", retry_after=PATIENCE)

    async def _shared(self, system: System, kind: Kind) -> bytes:
        if trio.current_time() >= self._until:
            await self._look(system)
        if kind not in self._made:
            await self._write(*kind)
        return self._made[kind]

    async def _look(self, system: System) -> None:
        """All figures of one moment, in one turn. Requests that have just ended, and models, are counted in others."""
        await system.statistics.request_log.catch_up()
        counts = ModelCounts()
        for number, cell in enumerate(list(system.servers.values())):
            counts.add(cell.state)
            await take_turns(number)
        self._families = snapshot(system, own_version(), platform.python_version(), counts)
        self._made = {}
        self._looked = trio.current_time()

    async def _write(self, content_type: str, zipped: bool) -> None:
        """In a worker thread, one at a time; whoever leaves does not wait for its end."""
        began = trio.current_time()
        made, families = self._made, self._families
        if (plain := made.get((content_type, False))) is None:
            plain = made[content_type, False] = await self._aside(
                partial(self._writers[content_type].written, families)
            )
        if zipped:
            made[content_type, True] = await self._aside(partial(compressed, plain))
        now = trio.current_time()
        self._until = min(max(self._until, now + self._share * (now - began)), self._looked + _LONGEST)

    async def _aside(self, work: Callable[[], bytes]) -> bytes:
        return await trio.to_thread.run_sync(work, limiter=self._thread, abandon_on_cancel=True)


def content_type_of(accept: str) -> str:
    """OpenMetrics for those who name it, and like it no less than plain text; else the text format."""
    wanted = _wanted(accept)
    openmetrics = wanted.get("application/openmetrics-text", 0.0)
    plain = next((wanted[kind] for kind in ("text/plain", "text/*", "*/*") if kind in wanted), 0.0)
    return OPENMETRICS if openmetrics > 0.0 and openmetrics >= plain else TEXT


def wants_gzip(accept_encoding: str) -> bool:
    """Whether the client takes gzip, and likes it no less than nothing of the kind."""
    wanted = _wanted(accept_encoding)
    gzip = wanted.get("gzip", wanted.get("x-gzip", wanted.get("*", 0.0)))
    return gzip > 0.0 and gzip >= wanted.get("identity", 0.0)


def _wanted(field: str) -> dict[str, float]:
    """The parts of an Accept field and how much each is liked (0 to 1); of those given twice the most liked."""
    return dict(sorted(map(_preference, field.lower().split(",")), key=lambda each: each[1]))


def _preference(part: str) -> tuple[str, float]:
    name, *parameters = (each.strip() for each in part.split(";"))
    given = {key.strip(): value.strip().strip('"') for key, _, value in (each.partition("=") for each in parameters)}
    if not given.get("version", "1.").startswith("1.") and name.startswith("application/openmetrics"):
        return name, 0.0
    return name, _quality(given.get("q", "1"))


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0
