"""The alerts of the fleet: which rule holds for whom, since when; acknowledged, silenced, remembered.

Per rule and subject: what holds is pending for the rule's `hold`, then fires, and is resolved when it has been gone for
`keep_firing`. Times of day are only shown; whether something is due is decided on the caller's clock, which never runs
back. A change gives the alert the next `seq`; changes are kept in a ring for the feed, what has ended in the history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fleet.common.wording import line
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.alert import TEXT, Ack, Alert
from fleet.observability.alerting.conditions import CONDITIONS, Condition, Finding, Subject
from fleet.observability.alerting.facts import Facts
from fleet.observability.alerting.rules import IN_APP, SEVERITIES, Rule
from fleet.observability.alerting.silences import Silence, Silences

RING: Final = 256
"""Changes that the feed can catch up on."""
MOST_SUBJECTS: Final = 50
"""Subjects of a rule with alerts of their own; one more sums up the rest."""
OTHERS: Final[Subject] = (("scope", "others"),)
TEST: Final = "FleetTest"
_FIRST_HISTORY: Final = 500

Listener = Callable[[Alert], None]
Key = tuple[str, Subject]


@dataclass(slots=True, eq=False)
class _Watched:
    """A rule and a subject whose condition holds, or did until just now. Times on the caller's clock."""

    began: float
    held: float
    """When the condition was last found true."""
    gone: float | None = None
    """When it was first found false after that."""
    alert: Alert | None = None
    """None: pending."""


class Alerts:
    """All of them. `prefix` tells this process's alerts from those of others; `rules` are those that are evaluated."""

    def __init__(
        self,
        prefix: str = "a",
        rules: Sequence[Rule] = IN_APP,
        conditions: Mapping[str, Condition] = CONDITIONS,
        silences: Silences | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self.silences = Silences() if silences is None else silences  # with none in it, it is false
        self.seq = 0
        """The number of the last change."""
        self.history: deque[Alert] = deque(maxlen=_FIRST_HISTORY)
        """Those that are over, oldest first."""
        self._conditions = conditions
        self._prefix = prefix
        self._watched: dict[Key, _Watched] = {}
        self._numbers = 0
        self._ring: deque[Alert] = deque(maxlen=RING)
        self._listeners: list[Listener] = []

    # ---- what others see

    @property
    def firing(self) -> list[Alert]:
        """Those that fire, the worst first, then the oldest."""
        found = [watched.alert for watched in self._watched.values() if watched.alert is not None]
        return sorted(found, key=lambda alert: (SEVERITIES.index(alert.severity), alert.since, alert.id))

    @property
    def pending(self) -> list[tuple[str, Mapping[str, str]]]:
        """Rules and subjects whose condition holds, but not for long enough yet."""
        return [(rule, dict(subject)) for (rule, subject), each in self._watched.items() if each.alert is None]

    def after(self, seq: int) -> list[Alert] | None:
        """The changes after this number, oldest first; None: some of them are forgotten, or it is not one of ours."""
        if seq > self.seq or seq < 0 or self.seq - seq > len(self._ring):
            return None
        return list(self._ring)[len(self._ring) - (self.seq - seq) :]

    def subscribe(self, listener: Listener) -> None:
        """Have a listener called with each alert that fires, ends, is acknowledged or silenced; it must not fail."""
        self._listeners.append(listener)

    def find(self, key: str) -> Alert | None:
        """One that fires, by its id."""
        return next((each.alert for each in self._watched.values() if each.alert and each.alert.id == key), None)

    # ---- once a second

    def evaluate(self, facts: Facts, settings: AlertsSection) -> None:
        """Hold every rule against the facts. Switched off, nothing holds, and what fires ends at once."""
        if self.history.maxlen != settings.history:
            self.history = deque(self.history, maxlen=settings.history)
        if not settings.enabled:
            for key in list(self._watched):
                self._end(key, facts)
            self.silences.expire(facts.at)
            return
        for rule in self.rules:
            found = self._bounded(rule, list(self._conditions[rule.name](facts, settings)))
            for finding in found:
                self._hold(rule, finding, facts, settings)
        for key, watched in list(self._watched.items()):
            if watched.held < facts.now:
                self._fade(key, watched, facts)
        self._hush(facts.at)

    def _bounded(self, rule: Rule, found: list[Finding]) -> list[Finding]:
        """At most `MOST_SUBJECTS`, those that are watched already before others; the rest in one."""
        if len(found) <= MOST_SUBJECTS:
            return found
        found.sort(key=lambda each: (rule.name, each.subject) not in self._watched)
        left = len(found) - MOST_SUBJECTS
        began = [each.since for each in found[MOST_SUBJECTS:] if each.since is not None]
        summed = Finding(OTHERS, f"{left} more: {rule.summary}", "", float(left), min(began, default=None))
        return [*found[:MOST_SUBJECTS], summed]

    def _hold(self, rule: Rule, finding: Finding, facts: Facts, settings: AlertsSection) -> None:
        key = (rule.name, finding.subject)
        watched = self._watched.get(key)
        if watched is None:
            began = facts.now if finding.since is None else min(finding.since, facts.now)
            watched = self._watched[key] = _Watched(began, facts.now)
        watched.held, watched.gone = facts.now, None
        limit = rule.threshold(settings) if finding.threshold is None else finding.threshold
        shown: dict[str, Any] = {
            "title": line(finding.title, TEXT),
            "detail": line(finding.detail, TEXT),
            "value": finding.value,
            "threshold": limit,
        }
        if watched.alert is not None:
            watched.alert = replace(watched.alert, **shown)
        elif facts.now - watched.began >= rule.hold:
            self._fire(rule, key, watched, facts, shown)

    def _fire(self, rule: Rule, key: Key, watched: _Watched, facts: Facts, shown: Mapping[str, Any]) -> None:
        subject = dict(key[1])
        alert = Alert(
            id=self._next_id(),
            seq=0,
            rule=rule.name,
            severity=rule.severity,
            state="firing",
            since=facts.epoch(watched.began),
            fired=facts.at,
            subject=subject,
            silenced_until=self.silences.until(rule.name, subject),
            actions=rule.actions,
            **shown,
        )
        watched.alert = self._changed(alert)

    def _fade(self, key: Key, watched: _Watched, facts: Facts) -> None:
        """The condition does not hold now."""
        if watched.gone is None:
            watched.gone = facts.now
        if watched.alert is None or facts.now - watched.gone >= self._keep(key[0]):
            self._end(key, facts)

    def _keep(self, rule: str) -> float:
        return next((each.keep_firing for each in self.rules if each.name == rule), 0.0)

    def _end(self, key: Key, facts: Facts) -> None:
        watched = self._watched.pop(key)
        if watched.alert is not None:
            ended = facts.epoch(facts.now if watched.gone is None else watched.gone)
            self.history.append(self._changed(replace(watched.alert, state="resolved", resolved=ended)))

    def _hush(self, at: float) -> None:
        """Let silences begin and end."""
        self.silences.expire(at)
        for watched in self._watched.values():
            if (alert := watched.alert) is not None:
                until = self.silences.until(alert.rule, alert.subject)
                if until != alert.silenced_until:
                    watched.alert = self._changed(replace(alert, silenced_until=until))

    # ---- what operators do

    def ack(self, key: str, by: str, at: float) -> Alert | None:
        """Somebody knows of an alert that fires; it holds until the alert ends. None: no such alert fires."""
        return self._put(key, Ack(by, at))

    def unack(self, key: str) -> Alert | None:
        """Take that back. None: no such alert fires."""
        return self._put(key, None)

    def _put(self, key: str, ack: Ack | None) -> Alert | None:
        for watched in self._watched.values():
            if watched.alert is not None and watched.alert.id == key:
                if watched.alert.ack != ack:
                    watched.alert = self._changed(replace(watched.alert, ack=ack))
                return watched.alert
        return None

    def silence(self, silence: Silence, at: float) -> bool:
        """Let a silence begin, for what fires too. False: there are too many."""
        added = self.silences.add(silence)
        self._hush(at)
        return added

    def unsilence(self, key: str, at: float) -> Silence | None:
        """End a silence. None: there is none."""
        lifted = self.silences.lift(key)
        self._hush(at)
        return lifted

    def test(self, by: str, at: float) -> Alert:
        """An alert that fires and ends at once, to see whether it arrives."""
        fired = self._changed(
            Alert(
                id=self._next_id(),
                seq=0,
                rule=TEST,
                severity="info",
                state="firing",
                since=at,
                fired=at,
                title="this is a test",
                detail=f"asked for by {by}" if by else "",
            )
        )
        self.history.append(self._changed(replace(fired, state="resolved", resolved=at)))
        return fired

    # ---- inside

    def _next_id(self) -> str:
        self._numbers += 1
        return f"{self._prefix}-{self._numbers}"

    def _changed(self, alert: Alert) -> Alert:
        self.seq += 1
        numbered = replace(alert, seq=self.seq)
        self._ring.append(numbered)
        _tell(self._listeners, numbered)
        return numbered


def _tell(listeners: Iterable[Listener], alert: Alert) -> None:
    for listener in listeners:
        listener(alert)
