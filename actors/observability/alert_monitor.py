"""The monitor: looks at the fleet once a second, keeps the verdict and the alerts.

Silences survive a restart (in the store, if there is one). Alerts do not: what still holds fires again, with the time
at which its condition began as far as that is known, and without who acknowledged it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

import trio

from actors.kit.supervisor import keep_up
from actors.observability.alert_webhook import Webhook
from actors.observability.fleet_facts import Look
from actors.storage.journal import Document
from fleet.observability.alerting.alert_manager import Alerts
from fleet.observability.alerting.facts import Facts, Traffic
from fleet.observability.alerting.silences import LONGEST, Silence, Silences
from fleet.observability.health_summary.summary import HealthSummary, Level
from fleet.observability.health_summary.summary_rules import STARTING, Judge, SummaryInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.breakers.registry import BreakerRegistry
    from actors.observability.host.sampler import HostWatch
    from actors.observability.watched_fleet import WatchedFleet
    from fleet.common.ids import Pair
    from fleet.observability.alerting.alert import Alert
    from fleet.observability.alerting.traffic_facts import Counts

log = logging.getLogger("fleet.alerts")

KIND: Final = "silence"
INTERVAL: Final = 1.0
"""Seconds between two looks."""
SOON: Final = 0.2
"""The same until the first servers are probed, so that the verdict of the start does not outlast it."""
THOROUGH: Final = 5.0
"""Seconds between two thorough ones."""


class Monitor:
    """The cell and the loop. Everything but `run` is synchronous."""

    def __init__(self, fleet: WatchedFleet, breakers: BreakerRegistry, host: HostWatch, counts: Counts) -> None:
        began = fleet.clock.wall()
        self._run = f"{math.floor(began * 10):x}"
        self._fleet = fleet
        self._look = Look(fleet, breakers, host, counts)
        self._judge = Judge()
        self._silences = 0
        self._due = -math.inf
        silences = Silences(lambda key: fleet.journal.touch(KIND, key))
        self.alerts = Alerts(f"a-{self._run}", silences=silences)
        self.webhook = Webhook(fleet.config, fleet.clock)
        self.verdict = HealthSummary(Level.UNKNOWN, STARTING, "the fleet has just started", "just started", began)
        self.alerts.subscribe(_told)
        self.alerts.subscribe(self.webhook.enqueue)
        self._restore()

    async def run(self) -> None:
        """Look until cancelled; deliveries of the webhook run beside."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_up, "webhook", self.webhook.run)
            while True:
                if self._fleet.clock.now() >= self._due:
                    self._due = self._fleet.clock.now() + THOROUGH
                    await self._look.thorough()
                self.evaluate()
                await trio.sleep(SOON if self.verdict.code == STARTING else INTERVAL)

    def evaluate(self) -> Facts:
        """One look: alerts first, for the verdict names what fires."""
        facts, settings = self._look.quick(), self._fleet.config.current.alerts
        self.alerts.evaluate(facts, settings)
        self.verdict = self._judge.judge(SummaryInput(facts, settings, self.alerts.firing))
        return facts

    def opened(self, pair: Pair) -> float | None:
        """Since when a breaker has not been closed, on our clock; None: it has not been seen so yet."""
        return self._look.opened(pair)

    @property
    def traffic(self) -> Traffic:
        """What requests told lately, as of the last look: the figures that alerts and the verdict are about."""
        return self._look.traffic

    # ---- for operators

    def ack(self, key: str, by: str) -> Alert | None:
        """Somebody knows of an alert. None: no such alert fires."""
        return self.alerts.ack(key, by, self._fleet.clock.wall())

    def silence(self, rule: str, subject: Mapping[str, str], until: float, by: str, why: str) -> Silence | None:
        """Silence a rule, or one subject of it, until then (epoch seconds). None: there are too many silences."""
        self._silences += 1
        at = self._fleet.clock.wall()
        made = Silence(f"s-{self._run}-{self._silences}", rule, dict(subject), min(until, at + LONGEST), by, at, why)
        return made if self.alerts.silence(made, at) else None

    def unsilence(self, key: str) -> Silence | None:
        """End a silence. None: there is none."""
        return self.alerts.unsilence(key, self._fleet.clock.wall())

    def test(self, by: str) -> Alert:
        """Raise a test alert, which ends at once."""
        return self.alerts.test(by, self._fleet.clock.wall())

    # ---- over a restart

    def _restore(self) -> None:
        journal, silences, at = self._fleet.journal, self.alerts.silences, self._fleet.clock.wall()
        journal.keep(KIND, self._document)
        for silence in journal.recall(KIND, Silence.read):
            if at < silence.until <= at + LONGEST:
                silences.add(silence)
            else:
                journal.touch(KIND, silence.id)

    def _document(self, key: str) -> Document | None:
        silence = self.alerts.silences.get(key)
        return None if silence is None else silence.document()


def _told(alert: Alert) -> None:
    """One line per alert that fires or ends, unless it is silenced or acknowledged. (Errors are our own faults.)"""
    if alert.silenced_until is None and alert.ack is None:
        serious = alert.firing and alert.severity != "info"
        level = logging.WARNING if serious else logging.INFO
        log.log(level, "alert %s is %s: %s", alert.rule, alert.state, alert.title)
