"""Every rule that the app evaluates: when its condition holds, and when it does not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from fleet.breakers.failure_classes import HARMLESS_PATTERN, failed
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.conditions import CONDITIONS, Finding
from fleet.observability.alerting.facts import (
    BreakerFact,
    Culprit,
    Facts,
    FirstTokenTimes,
    FleetTrouble,
    ModelFact,
    QueueFact,
    ServerFact,
    Share,
    Traffic,
)
from fleet.observability.alerting.rule_wording import cause, words
from fleet.observability.alerting.rules import IN_APP, RULES
from fleet.observability.host_sample import Gpu, HostSample
from fleet.observability.metrics.definitions import BY_NAME as METRICS

NOW = 10_000.0
PAIR = Pair(ServerId("a"), ModelName("m:latest"))
SETTINGS = AlertsSection()


def facts(*states: str, **more: Any) -> Facts:
    """A fleet with one server per state; each has been in it for 100 seconds."""
    servers = tuple(ServerFact(f"s{n}", state, NOW - 100, "why.", 3) for n, state in enumerate(states))
    return Facts(now=NOW, at=1e9, servers=servers, **more)


def traffic(**more: Any) -> Facts:
    return facts("ok", traffic=Traffic(**more))


def burning(count: int, failed: int, **more: Any) -> Facts:
    """So many requests failed in the last five minutes, and as many in the hour."""
    return traffic(minutes5=Share(count, failed), hour=Share(count, failed), **more)


def host(**more: Any) -> Facts:
    return facts("ok", host=HostSample(1e9, **more))


def paces(*seconds: float, count: int = 20) -> dict[str, FirstTokenTimes]:
    return {f"s{n}": FirstTokenTimes(count, each) for n, each in enumerate(seconds)}


HOLDS: dict[str, list[Facts]] = {
    "FleetNoServers": [facts("down"), facts("down", "maintenance"), facts("unknown")],
    "FleetManyServersDown": [facts("down", "down", "ok"), facts("down", "down", *["ok"] * 4)],
    "FleetServerDown": [facts("down", "ok")],
    "FleetModelUnservable": [facts("ok", unservable=(ModelFact("m:latest", 2, 1),))],
    "FleetDrainStuck": [replace(facts("draining"), now=NOW + 1_701)],
    "FleetErrorBudgetBurnFast": [burning(20, 2), burning(1000, 51)],
    "FleetErrorBudgetBurnSlow": [traffic(minutes30=Share(100, 3), hours6=Share(1000, 25))],
    "FleetTTFTHigh": [traffic(first=FirstTokenTimes(10, 5.1))],
    "FleetServerSlow": [traffic(servers=paces(1.0, 1.0, 4.1))],
    "FleetStreamStalls": [traffic(streams=200, stalls=3), traffic(streams=2, stalls=3)],
    "FleetQueueBacklog": [facts("ok", queue=QueueFact(waiting=1, oldest=NOW - 31, model="m"))],
    "FleetQueueRejecting": [traffic(rejected=1)],
    "FleetQueuePaused": [facts("ok", queue=QueueFact(paused=True, paused_since=NOW - 9, paused_by="ana"))],
    "FleetBreakerOpen": [facts("ok", breakers=(BreakerFact(PAIR, NOW - 5),))],
    "FleetBreakerFlapping": [traffic(flaps={PAIR: 5})],
    "FleetThrash": [traffic(loads={PAIR: 7})],
    "FleetCPUHigh": [host(cpu_percent=95.1)],
    "FleetMemoryHigh": [host(memory_percent=96.0)],
    "FleetDiskFull": [host(disk_percent=91.0)],
    "FleetVRAMNearFull": [host(gpus=(Gpu("0", "card", memory_used=96, memory_total=100),))],
    "FleetConfigReloadFailed": [facts("ok", reload=FleetTrouble(NOW - 1, "bad"))],
    "FleetStoreDegraded": [facts("ok", store=FleetTrouble(NOW - 1, "disk full"))],
    "FleetHistoryDropped": [facts("ok", dropped=FleetTrouble(NOW - 1, "", 12))],
}
HOLDS_NOT: dict[str, list[Facts]] = {
    "FleetNoServers": [facts(), facts("ok", "down")],
    "FleetManyServersDown": [facts("down", "ok", "ok"), facts("down", "down", *["ok"] * 5), facts("maintenance")],
    "FleetServerDown": [facts("ok", "maintenance", "drained", "draining", "unknown")],
    "FleetModelUnservable": [facts("ok")],
    "FleetDrainStuck": [facts("draining"), replace(facts("drained", "maintenance"), now=NOW + 9_999)],
    "FleetErrorBudgetBurnFast": [
        burning(19, 19),
        burning(100, 5),
        traffic(minutes5=Share(100, 50), hour=Share(10_000, 60)),  # Prometheus asks for both too
        burning(100, 50, lately=(Share(2, 0), Share(20, 0), Share(40, 0))),
    ],
    "FleetErrorBudgetBurnSlow": [
        traffic(minutes30=Share(100, 3), hours6=Share(1000, 20)),
        traffic(minutes30=Share(100, 2), hours6=Share(1000, 900)),
        traffic(minutes30=Share(19, 19), hours6=Share(19, 19)),
    ],
    "FleetTTFTHigh": [traffic(first=FirstTokenTimes(9, 60.0)), traffic(first=FirstTokenTimes(100, 5.0))],
    "FleetServerSlow": [
        traffic(servers=paces(1.0, 1.0, 4.0)),
        traffic(servers=paces(0.1, 0.1, 0.45)),
        traffic(servers=paces(1.0, 9.0)),
        traffic(servers=paces(1.0, 1.0, 9.0, count=19)),
        traffic(servers=paces(0.0, 0.0, 9.0)),
    ],
    "FleetStreamStalls": [traffic(streams=10, stalls=2), traffic(streams=301, stalls=3)],
    "FleetQueueBacklog": [
        facts("ok"),
        facts("ok", queue=QueueFact(waiting=1, oldest=NOW - 30)),
        facts("ok", queue=QueueFact(waiting=1, oldest=NOW - 99, paused=True)),
    ],
    "FleetQueueRejecting": [traffic()],
    "FleetQueuePaused": [facts("ok")],
    "FleetBreakerOpen": [facts("ok")],
    "FleetBreakerFlapping": [traffic(flaps={PAIR: 4})],
    "FleetThrash": [traffic(loads={PAIR: 6})],
    "FleetCPUHigh": [facts("ok"), host(), host(cpu_percent=95.0)],
    "FleetMemoryHigh": [facts("ok"), host(), host(memory_percent=95.0)],
    "FleetDiskFull": [facts("ok"), host(), host(disk_percent=90.0)],
    "FleetVRAMNearFull": [
        facts("ok"),
        host(gpus=(Gpu("0", "card"), Gpu("1", "none", memory_used=0, memory_total=0))),
        host(gpus=(Gpu("0", "card", memory_used=95, memory_total=100),)),
    ],
    "FleetConfigReloadFailed": [facts("ok")],
    "FleetStoreDegraded": [facts("ok")],
    "FleetHistoryDropped": [facts("ok")],
}


def rows(table: dict[str, list[Facts]]) -> list[Any]:
    return [pytest.param(name, each, id=f"{name}-{n}") for name, all_ in table.items() for n, each in enumerate(all_)]


def found(name: str, seen: Facts, settings: AlertsSection = SETTINGS) -> list[Finding]:
    return list(CONDITIONS[name](seen, settings))


@pytest.mark.parametrize(("name", "seen"), rows(HOLDS))
def test_it_holds(name: str, seen: Facts) -> None:
    (finding,) = found(name, seen)
    assert finding.title
    assert finding.value is not None
    assert finding.since is None or finding.since <= seen.now
    rule = next(rule for rule in RULES if rule.name == name)
    assert tuple(label for label, _ in finding.subject) == rule.labels


@pytest.mark.parametrize(("name", "seen"), rows(HOLDS_NOT))
def test_it_does_not_hold(name: str, seen: Facts) -> None:
    assert found(name, seen) == []


def test_every_rule_of_the_app_has_a_condition_and_rows_here() -> None:
    names = {rule.name for rule in IN_APP}
    assert names == set(CONDITIONS) == set(HOLDS) == set(HOLDS_NOT)


@pytest.mark.parametrize(
    ("name", "seen", "settings"),
    [
        ("FleetErrorBudgetBurnFast", burning(20, 2), {"error_rate": 0.1}),
        ("FleetErrorBudgetBurnFast", burning(20, 2), {"error_requests": 21}),
        ("FleetTTFTHigh", traffic(first=FirstTokenTimes(10, 5.1)), {"first_token": 5.2}),
        ("FleetServerSlow", traffic(servers=paces(1.0, 1.0, 4.1)), {"slow_ratio": 5.0}),
        ("FleetServerSlow", traffic(servers=paces(1.0, 1.0, 4.1)), {"slow_requests": 21}),
        ("FleetStreamStalls", traffic(streams=200, stalls=3), {"stall_share": 0.02}),
        ("FleetQueueBacklog", facts("ok", queue=QueueFact(oldest=NOW - 31)), {"queue_wait": 40.0}),
        ("FleetBreakerFlapping", traffic(flaps={PAIR: 5}), {"breaker_flaps": 5}),
        ("FleetThrash", traffic(loads={PAIR: 7}), {"thrash_loads": 7}),
        ("FleetCPUHigh", host(cpu_percent=95.1), {"cpu": 0.99}),
        ("FleetMemoryHigh", host(memory_percent=96.0), {"memory": 0.99}),
        ("FleetDiskFull", host(disk_percent=91.0), {"disk": 0.99}),
        ("FleetDrainStuck", replace(facts("draining"), now=NOW + 1_701), {"drain": 7200.0}),
    ],
)
def test_the_operators_threshold_holds(name: str, seen: Facts, settings: dict[str, Any]) -> None:
    assert found(name, seen)
    assert found(name, seen, AlertsSection(**settings)) == []


def test_titles_name_who_and_details_say_why() -> None:
    (down,) = found("FleetServerDown", facts("down", "ok"))
    assert (down.title, down.detail) == ("s0 is down", "why; 3 probes failed in a row")
    assert (down.since, down.threshold) == (NOW - 100, 3.0)
    culprit = Culprit("gpu-042", "backend_unreachable", 9, "m:7b")
    (errors,) = found("FleetErrorBudgetBurnFast", burning(125, 9, culprit=culprit))
    assert errors.title == "7.2% of requests failed in 5 minutes"
    assert errors.detail == "9 of 125, mostly gpu-042 cannot be reached (m:7b)"
    (slow,) = found("FleetServerSlow", traffic(servers=paces(1.0, 1.0, 5.0)))
    assert slow.title == "s2 answers 5× slower than the rest"


def test_every_setting_of_alerts_has_a_rule() -> None:
    used = {rule.setting for rule in RULES} | {"enabled", "history", "error_requests", "slow_requests", "webhook"}
    assert used - {""} == set(AlertsSection.model_fields)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_written_as_the_house_style_wants(rule: Any) -> None:
    assert re.fullmatch(r"Fleet[A-Z][A-Za-z]+", rule.name)
    assert rule.hold >= 0
    assert rule.keep_firing >= 0
    for text in (rule.summary, rule.description, rule.meaning, rule.remedy):
        assert text[0].isupper() or text.startswith("{{")
        assert text.endswith(".")
    assert "{{" not in rule.summary
    for label in re.findall(r"\$labels\.(\w+)", rule.description):
        assert label in (*rule.labels, "instance")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_queries_ask_only_for_metrics_that_exist(rule: Any) -> None:
    query = rule.promql(SETTINGS)
    names = set(re.findall(r"\b(?:fleet|ollama_proxy)_[a-z0-9_]+", re.sub(r'"[^"]*"', '""', query)))
    for name in names:
        base = re.sub(r"_(?:bucket|count|sum)$", "", name)
        assert name in METRICS or METRICS[base].kind == "histogram", name
    assert names or rule.name == "FleetDown"


@pytest.mark.parametrize(
    ("outcome", "bad"),
    [
        ("completed", False),
        ("incomplete", False),
        ("client_left", False),
        ("model_not_found", False),
        ("refused_400", False),
        ("refused_404", False),
        ("refused_429", True),
        ("refused_428", False),
        ("refused_430", False),
        ("refused_500", True),
        ("refused_503", True),
        ("backend_unreachable", True),
        ("no_server", True),
        ("queue_full", True),
        ("internal_error", True),
    ],
)
def test_a_failure_is_the_same_here_and_in_prometheus(outcome: str, bad: bool) -> None:
    assert failed(outcome) is bad
    assert (re.fullmatch(HARMLESS_PATTERN, outcome) is None) is bad


def test_causes_are_put_into_words() -> None:
    assert words("refused_503") == "answers 503"
    assert words("something_new") == "something new"
    assert cause(Culprit("", "queue_full", 3)) == "because the queue is full"


def test_thresholds_are_those_of_the_settings() -> None:
    rules = {rule.name: rule for rule in RULES}
    assert rules["FleetTTFTHigh"].threshold(AlertsSection(first_token=7.5)) == 7.5
    assert rules["FleetManyServersDown"].threshold(SETTINGS) == 0.3
    assert "> 7.5" in rules["FleetTTFTHigh"].promql(AlertsSection(first_token=7.5))
