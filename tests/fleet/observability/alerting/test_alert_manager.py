"""The engine of alerts, on a clock of its own: hold, hysteresis, acknowledgement, silence, history, bounds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.alert import Alert
from fleet.observability.alerting.alert_manager import MOST_SUBJECTS, RING, TEST, Alerts
from fleet.observability.alerting.conditions import Finding
from fleet.observability.alerting.facts import Facts
from fleet.observability.alerting.rules import RULES, Rule
from fleet.observability.alerting.silences import MOST, Silence, Silences

EPOCH = 1_795_000_000.0
DOWN = next(rule for rule in RULES if rule.name == "FleetServerDown")
HOLD, KEEP = DOWN.hold, DOWN.keep_firing
SETTINGS = AlertsSection()


class Bench:
    """One rule whose findings the test chooses, and a clock."""

    def __init__(self, rule: Rule = DOWN) -> None:
        self.now = 1_000.0
        self.found: list[Finding] = []
        self.alerts = Alerts("a", (rule,), {rule.name: self._condition})
        self.told: list[Alert] = []
        self.alerts.subscribe(self.told.append)
        self.settings = SETTINGS

    def _condition(self, facts: Facts, settings: AlertsSection) -> Iterator[Finding]:
        yield from self.found

    @property
    def at(self) -> float:
        return EPOCH + self.now

    def look(self, seconds: float = 0.0) -> None:
        """So much later, one look."""
        self.now += seconds
        self.alerts.evaluate(Facts(now=self.now, at=self.at), self.settings)

    def fire(self, *servers: str) -> None:
        """Let servers be down for as long as it takes."""
        self.find(*servers)
        self.look()
        self.look(HOLD)

    def find(self, *servers: str, **more: Any) -> None:
        self.found = [Finding((("server", name),), f"{name} is down", "refused", 5.0, **more) for name in servers]

    @property
    def states(self) -> list[str]:
        return [alert.state for alert in self.told]


def test_a_condition_is_pending_for_the_hold_and_then_fires() -> None:
    bench = Bench()
    bench.find("gpu-1")
    bench.look()
    assert (bench.alerts.firing, bench.alerts.pending) == ([], [("FleetServerDown", {"server": "gpu-1"})])
    bench.look(HOLD - 1)
    assert bench.told == []
    bench.look(1)
    (alert,) = bench.alerts.firing
    assert bench.told == [alert]
    assert bench.alerts.pending == []
    assert (alert.since, alert.fired, alert.seq) == (EPOCH + 1_000.0, EPOCH + 1_000.0 + HOLD, 1)


def test_a_condition_that_passes_before_its_hold_is_forgotten() -> None:
    bench = Bench()
    bench.find("gpu-1")
    bench.look()
    bench.find()
    bench.look(HOLD / 2)
    bench.find("gpu-1")
    bench.look(HOLD / 2)
    assert (bench.told, bench.alerts.firing) == ([], [])
    bench.look(HOLD - 1)
    assert bench.told == []


def test_since_is_when_the_condition_began_and_the_hold_counts_from_there() -> None:
    bench = Bench()
    bench.find("gpu-1", since=1_000.0 - HOLD)
    bench.look()
    (alert,) = bench.alerts.firing
    assert (alert.since, alert.fired) == (EPOCH + 1_000.0 - HOLD, EPOCH + 1_000.0)
    bench.find("gpu-1", since=1_500.0)
    bench.look(1)
    assert bench.alerts.firing[0].since == alert.since


def test_an_alert_ends_when_its_condition_has_been_gone_for_long_enough() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    bench.find()
    bench.look(1)
    gone = bench.at
    bench.look(KEEP - 1)
    assert len(bench.alerts.firing) == 1
    bench.look(1)
    assert bench.alerts.firing == []
    assert bench.states == ["firing", "resolved"]
    (over,) = bench.alerts.history
    assert (over.id, over.resolved, over.seq) == (bench.told[0].id, gone, 2)


def test_a_condition_that_comes_back_in_time_is_the_same_alert() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    for _ in range(10):
        bench.find()
        bench.look(KEEP - 1)
        bench.find("gpu-1")
        bench.look(1)
    assert bench.states == ["firing"]


def test_what_is_shown_follows_the_condition_without_a_change() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    bench.found = [Finding((("server", "gpu-1"),), "gpu-1 is\x1b[31m down", "timeout\nnow", 9.0, threshold=3.0)]
    bench.look(1)
    (alert,) = bench.alerts.firing
    assert (alert.title, alert.detail, alert.value, alert.threshold) == ("gpu-1 is [31m down", "timeout now", 9.0, 3.0)
    assert bench.alerts.seq == 1


def test_the_payload_has_exactly_the_keys_of_the_contract() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    assert bench.told[0].payload() == {
        "id": "a-1",
        "seq": 1,
        "rule": "FleetServerDown",
        "severity": "warning",
        "state": "firing",
        "since": EPOCH + 1_000.0,
        "resolved": None,
        "subject": {"server": "gpu-1"},
        "title": "gpu-1 is down",
        "detail": "refused",
        "value": 5.0,
        "threshold": 0.0,
        "ack": None,
        "silenced_until": None,
        "actions": ["test", "maintenance", "remove"],
        "href": "#/servers/gpu-1",
    }


@pytest.mark.parametrize(
    ("rule", "subject", "href"),
    [
        ("FleetBreakerOpen", {"server": "a", "model": "ns/m:7b"}, "#/breakers/a/ns%2Fm:7b"),
        ("FleetModelUnservable", {"model": 'x"#'}, "#/models/x%22%23"),
        ("FleetQueuePaused", {}, "#/queue"),
        ("FleetVRAMNearFull", {"gpu": "0"}, "#/alerts"),
    ],
)
def test_an_alert_leads_to_the_page_that_is_about_it(rule: str, subject: dict[str, str], href: str) -> None:
    assert Alert("a", 1, rule, "info", "firing", 0.0, 0.0, "t", subject=subject).href == href


def test_an_acknowledgement_is_a_change_and_ends_with_its_alert() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    key = bench.told[0].id
    acked = bench.alerts.ack(key, "ana", bench.at)
    assert acked is not None
    assert acked.payload()["ack"] == {"by": "ana", "at": bench.at}
    assert bench.told[-1] is acked is bench.alerts.find(key)
    assert bench.alerts.ack("a-77", "ana", bench.at) is None
    bench.find()
    bench.look(1)
    bench.look(KEEP)
    assert bench.alerts.history[-1].ack is not None
    assert bench.alerts.ack(key, "ana", bench.at) is None
    bench.fire("gpu-1")
    assert bench.alerts.firing[0].ack is None


def test_an_acknowledgement_can_be_taken_back_and_saying_it_twice_changes_nothing() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    key = bench.told[0].id
    bench.alerts.unack(key)
    assert bench.alerts.seq == 1
    bench.alerts.ack(key, "ana", bench.at)
    bench.alerts.ack(key, "ana", bench.at)
    assert bench.alerts.seq == 2
    gone = bench.alerts.unack(key)
    assert gone is not None
    assert (gone.ack, gone.seq) == (None, 3)


def silence(bench: Bench, key: str = "s-1", seconds: float = 60.0, **subject: str) -> Silence:
    return Silence(key, "FleetServerDown", subject, bench.at + seconds, "ana", bench.at)


def test_a_silence_holds_for_one_subject_until_its_end() -> None:
    bench = Bench()
    bench.fire("gpu-1", "gpu-2")
    assert bench.alerts.silence(silence(bench, server="gpu-1"), bench.at)
    quiet = {alert.subject["server"]: alert.silenced_until for alert in bench.alerts.firing}
    assert quiet == {"gpu-1": bench.at + 60.0, "gpu-2": None}
    assert [alert.silenced_until for alert in bench.told] == [None, None, bench.at + 60.0]
    before = bench.alerts.seq
    bench.look(59)
    assert bench.alerts.seq == before
    bench.look(1)
    assert [alert.silenced_until for alert in bench.told[3:]] == [None]
    assert len(bench.alerts.silences) == 0


def test_a_silence_without_a_subject_covers_the_rule_and_what_fires_later() -> None:
    bench = Bench()
    bench.alerts.silence(silence(bench, seconds=10_000), bench.at)
    bench.fire("gpu-1", "gpu-2")
    assert [alert.silenced_until for alert in bench.told] == [1_000.0 + EPOCH + 10_000] * 2
    assert bench.alerts.unsilence("s-1", bench.at) is not None
    assert [alert.silenced_until for alert in bench.alerts.firing] == [None, None]
    assert bench.alerts.unsilence("s-1", bench.at) is None


def test_silences_are_bounded_and_survive_as_documents() -> None:
    held, bench = Silences(), Bench()
    assert all(held.add(silence(bench, f"s-{n}", server="x")) for n in range(MOST))
    assert not held.add(silence(bench, "s-new"))
    assert held.add(silence(bench, "s-1"))
    one = silence(bench, "s-9", server="gpu-1")
    assert Silence.read("s-9", one.document()) == one


@pytest.mark.parametrize(
    "broken",
    [
        {"subject": []},
        {"subject": {"server": 1}},
        {"until": float("nan")},
        {"at": True},
        {"rule": None},
        {"why": "x" * 2000},
    ],
)
def test_a_silence_that_was_tampered_with_is_refused(broken: dict[str, Any]) -> None:
    document = silence(Bench(), server="a").document()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Silence.read("s-1", document | broken)


def test_subjects_beyond_the_bound_are_summed_up_in_one() -> None:
    bench = Bench()
    bench.fire(*(f"gpu-{n}" for n in range(MOST_SUBJECTS + 30)))
    firing = bench.alerts.firing
    assert len(firing) == MOST_SUBJECTS + 1
    (summed,) = [alert for alert in firing if alert.subject == {"scope": "others"}]
    assert (summed.title, summed.value) == ("30 more: A server is down.", 30.0)
    named = {alert.subject.get("server") for alert in firing}
    bench.find(*(f"gpu-{n}" for n in reversed(range(MOST_SUBJECTS + 30))))
    bench.look(1)
    assert {alert.subject.get("server") for alert in bench.alerts.firing} == named
    assert bench.alerts.seq == MOST_SUBJECTS + 1


def test_switched_off_everything_ends_at_once() -> None:
    bench = Bench()
    bench.fire("gpu-1")
    bench.settings = AlertsSection(enabled=False)
    bench.look(1)
    assert (bench.alerts.firing, bench.states) == ([], ["firing", "resolved"])
    bench.look(HOLD)
    assert bench.alerts.pending == []


def test_silences_end_while_alerts_are_switched_off() -> None:
    bench = Bench()
    bench.alerts.silence(Silence("s-1", DOWN.name, {}, bench.at + 60, "ana", bench.at), bench.at)
    bench.settings = AlertsSection(enabled=False)
    bench.look(61)
    assert len(bench.alerts.silences) == 0


def test_the_history_is_as_long_as_configured_also_while_it_runs() -> None:
    bench = Bench()
    for n in range(30):
        bench.alerts.test(str(n), bench.at)
    bench.settings = AlertsSection(history=10)
    bench.look(1)
    assert [alert.detail for alert in bench.alerts.history] == [f"asked for by {n}" for n in range(20, 30)]
    bench.settings = AlertsSection(history=20)
    bench.look(1)
    assert (len(bench.alerts.history), bench.alerts.history.maxlen) == (10, 20)


def test_the_feed_can_catch_up_as_far_as_the_ring_reaches() -> None:
    bench = Bench()
    assert bench.alerts.after(0) == []
    assert bench.alerts.after(1) is None
    for n in range(RING):
        bench.alerts.test(str(n), bench.at)
    found = bench.alerts.after(2 * RING - 3)
    assert found is not None
    assert [alert.seq for alert in found] == [2 * RING - 2, 2 * RING - 1, 2 * RING]
    assert len(bench.alerts.after(RING) or []) == RING
    assert bench.alerts.after(RING - 1) is None
    assert bench.alerts.after(-1) is None
    assert bench.alerts.after(2 * RING) == []


def test_a_test_alert_fires_and_ends_at_once() -> None:
    bench = Bench()
    fired = bench.alerts.test("ana", bench.at)
    assert (fired.rule, fired.severity, fired.detail) == (TEST, "info", "asked for by ana")
    assert bench.states == ["firing", "resolved"]
    assert bench.alerts.firing == []


def test_the_worst_come_first_then_the_oldest() -> None:
    rules = tuple(rule for rule in RULES if rule.name in ("FleetNoServers", "FleetServerDown", "FleetDrainStuck"))
    times = {"FleetNoServers": 90.0, "FleetServerDown": 10.0, "FleetDrainStuck": 1.0}

    def condition(name: str) -> Any:
        return lambda facts, settings: iter([Finding((), name, since=times[name])])

    alerts = Alerts("a", rules, {rule.name: condition(rule.name) for rule in rules})
    alerts.evaluate(Facts(now=10_000.0, at=EPOCH), SETTINGS)
    assert [alert.rule for alert in alerts.firing] == ["FleetNoServers", "FleetServerDown", "FleetDrainStuck"]


@given(st.lists(st.booleans(), min_size=1, max_size=600))
def test_an_alert_never_flaps_faster_than_its_hysteresis(pattern: list[bool]) -> None:
    """Looks come once in ten seconds, and the condition holds or not as it likes."""
    bench, step = Bench(), 10.0
    moments: list[tuple[float, str]] = []
    bench.alerts.subscribe(lambda alert: moments.append((bench.now, alert.state)))
    for holds in pattern:
        bench.find(*(("gpu-1",) if holds else ()))
        bench.look(step)
    assert [state for _, state in moments] == ["firing", "resolved"] * (len(moments) // 2) + ["firing"] * (
        len(moments) % 2
    )
    for (before, was), (after, _) in pairwise(moments):
        assert after - before >= (KEEP if was == "firing" else HOLD)
