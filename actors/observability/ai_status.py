"""A short text on the fleet's state: written by a small model if one is configured, else put together by rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

import trio

from actors.observability.ai_status_model import Exchange, StatusModel
from fleet.observability.health_summary.status_text import FleetFigures, by_rules
from fleet.scheduling.server_state import Health

if TYPE_CHECKING:
    from actors.observability.watched_fleet import WatchedFleet
    from fleet.observability.alerting.facts import Traffic
    from fleet.observability.health_summary.summary import HealthSummary

LOOK: Final = 1.0
"""Seconds between two looks at the verdict and the settings."""
BREATH: Final = 10.0
"""Seconds between two questions to the model, however often the verdict changes."""
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class AiStatus:
    """The text (at most 280 characters), who wrote it, when (epoch seconds), and what it is about."""

    text: str
    level: str
    source: Literal["rules", "model"]
    model: str | None
    at: float
    refs: tuple[str, ...] = ()


class Verdicts(Protocol):
    """Who judges the fleet (the monitor), and what it judges by: else one screen would show two truths."""

    @property
    def verdict(self) -> HealthSummary:
        """The latest."""
        ...

    @property
    def traffic(self) -> Traffic:
        """What requests told lately."""
        ...


class StatusWriter:
    """The cell and the loop. `latest` is replaced, never changed."""

    def __init__(self, fleet: WatchedFleet, monitor: Verdicts, exchange: Exchange) -> None:
        self._fleet = fleet
        self._monitor = monitor
        self._author = StatusModel(fleet, exchange)
        self._about: tuple[object, ...] = ()
        self._due = self._asked = -math.inf
        self.latest: AiStatus | None = None

    async def run(self) -> None:
        """Write until cancelled: at once, whenever the verdict or the settings change, and every `interval`."""
        while True:
            settings = self._fleet.config.current.ai_status
            changed = self._outdated()
            if changed or self._fleet.clock.now() >= self._due:
                self._about = self._key()
                least = BREATH if settings.enabled else 0.0
                self._due = self._fleet.clock.now() + max(settings.interval, least)
                await self._renew(changed)
            await trio.sleep(LOOK)

    async def _renew(self, changed: bool) -> None:
        """A text that is about something else is wrong at once; one that is only old may stay until the model's."""
        if changed:
            self._write(self._monitor.verdict)
        if not await self._ask() and not changed:
            self._write(self._monitor.verdict)

    async def _ask(self) -> bool:
        """Let the model write, if it may; whether it has."""
        settings, verdict = self._fleet.config.current.ai_status, self._monitor.verdict
        now = self._fleet.clock.now()
        if not settings.enabled or not settings.model:
            return False
        if now < self._asked + BREATH:
            self._due = min(self._due, self._asked + BREATH)
            return False
        text = await self._author.write(settings.model, settings.timeout, verdict, self.figures(), self._outdated)
        if text is not None:
            self._asked = now
        if text:
            self._write(verdict, text, settings.model)
        return bool(text)

    def _write(self, verdict: HealthSummary, text: str = "", model: str | None = None) -> None:
        self.latest = AiStatus(
            text=text or by_rules(verdict, self.figures()),
            level=verdict.level.value,
            source="model" if text else "rules",
            model=model,
            at=self._fleet.clock.wall(),
            refs=verdict.subjects,
        )

    def _outdated(self) -> bool:
        """Whether a text, written or being written, is about something that is no longer so."""
        return self._key() != self._about

    def _key(self) -> tuple[object, ...]:
        """What a text is about. The verdict's figures move all the time; its level, cause and subjects do not."""
        verdict = self._monitor.verdict
        return verdict.level, verdict.code, verdict.subjects, self._fleet.config.current.ai_status

    def figures(self) -> FleetFigures:
        """The fleet in numbers, as of now."""
        fleet, now, traffic = self._fleet, self._fleet.clock.now(), self._monitor.traffic
        states = [cell.state for cell in fleet.servers.values()]
        ((start, minute),) = fleet.statistics.totals.windows((_MINUTE,))
        span = max(now - start, 1.0)
        return FleetFigures(
            up=sum(state.health is Health.HEALTHY for state in states),
            total=len(states),
            running=fleet.servers.in_flight,
            waiting=sum(ticket.open for ticket in fleet.scheduler.tickets.values()),
            rate=minute.count / span,
            tokens=minute.output / span,
            errors=traffic.minutes5.ratio,
            first_token=traffic.first.p95 if traffic.first.count else None,
        )
