"""The verdict line: the order of its sentences, what they say to whom, and that it does not flap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.alert import Alert
from fleet.observability.alerting.facts import (
    BreakerFact,
    CapFact,
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
from fleet.observability.alerting.rules import BY_NAME
from fleet.observability.health_summary.summary import HealthSummary, Level
from fleet.observability.health_summary.summary_rules import IMPROVE, WORSEN, Judge, SummaryInput, judge

NOW, EPOCH = 10_000.0, 1_795_000_000.0
SETTINGS = AlertsSection()
PAIR = Pair(ServerId("gpu-9"), ModelName("m:7b"))
SECRETS = ("gpu-", "m:7b", "ana", "/etc", "secret")


def facts(*states: str, now: float = NOW, **more: Any) -> Facts:
    servers = tuple(ServerFact(f"gpu-{n}", state, now - 100, f"gpu-{n}: refused.", 3) for n, state in enumerate(states))
    return Facts(now=now, at=EPOCH, servers=servers, **more)


def seen(*states: str, firing: tuple[Alert, ...] = (), **more: Any) -> SummaryInput:
    return SummaryInput(facts(*states, **more), SETTINGS, firing)


def alert(rule: str, severity: Any = "warning", **more: Any) -> Alert:
    return Alert("a-1", 1, rule, severity, "firing", EPOCH - 50, EPOCH, "the secret title", **more)


CULPRIT = Culprit("gpu-042", "backend_unreachable", 8, "m:7b")
BAD = Traffic(minutes5=Share(125, 9), hours6=Share(10_125, 19), culprit=CULPRIT)
UNSERVABLE = (ModelFact("m:7b", 2, 2),)
WAITING = QueueFact(waiting=31, capacity=100, oldest=NOW - 12, model="m:7b", taken=40, slots=40)
SLOW = Traffic(
    servers={"gpu-0": FirstTokenTimes(20, 1.0), "gpu-1": FirstTokenTimes(20, 1.0), "gpu-2": FirstTokenTimes(20, 5.0)}
)
ROWS: list[tuple[SummaryInput, str, str]] = [
    (seen("ok", draining=True, open_requests=3), "draining", "◆ shutting down: 3 requests left"),
    (seen(), "no_servers", "○ nothing to serve yet: add a server"),
    (seen("unknown", "unknown"), "starting", "○ starting: 0 of 2 servers probed"),
    (seen("unknown", "down"), "starting", "○ starting: 1 of 2 servers probed"),
    (seen("down", "maintenance"), "no_server", "■ none of the 2 servers can be used: 1 down, 1 maintenance"),
    (seen("down"), "no_server", "■ the only server cannot be used: gpu-0: refused"),
    (
        seen("ok", unservable=UNSERVABLE, traffic=BAD),
        "model_unservable",
        "■ m:7b cannot be served: its 2 servers are down",
    ),
    (
        seen("ok", unservable=(ModelFact("m:7b", 1, 0), *UNSERVABLE)),
        "model_unservable",
        "■ m:7b cannot be served: its only server is down, out of service or behind a breaker, and 1 more models",
    ),
    (
        seen("ok", "down", traffic=BAD),
        "errors",
        "■ 7.2% of requests failed in 5 minutes (0.1% in the 6 hours before), mostly gpu-042 cannot be reached (m:7b)",
    ),
    (
        seen("ok", queue=QueueFact(waiting=100, capacity=100, paused=True)),
        "queue_full",
        "■ the queue is full: 100 requests wait, new ones are refused",
    ),
    (
        seen("ok", "down", queue=QueueFact(waiting=1, paused=True, paused_since=NOW - 5, paused_by="ana")),
        "queue_paused",
        "▲ the queue is paused: 1 request waits (by ana)",
    ),
    (
        seen("ok", "down", breakers=(BreakerFact(PAIR, NOW - 9),)),
        "server_down",
        "▲ 1 server down: gpu-1: refused",
    ),
    (
        seen("ok", *["down"] * 5),
        "server_down",
        "▲ 5 servers down: gpu-1, gpu-2, gpu-3 and 2 more",
    ),
    (seen("ok", breakers=(BreakerFact(PAIR, NOW - 9),)), "breaker_open", "▲ 1 breaker open: m:7b on gpu-9"),
    (
        seen("ok", queue=WAITING, traffic=SLOW),
        "saturated",
        "▲ queue 31, oldest waits 12 s: all 40 slots for m:7b are taken",
    ),
    (seen("ok", "ok", "ok", traffic=SLOW), "server_slow", "▲ gpu-2 answers 5× slower than the rest"),
    (
        seen("ok", reload=FleetTrouble(NOW - 7, "/etc/secret"), store=FleetTrouble(NOW - 8, "")),
        "config_reload_failed",
        "▲ the configuration file cannot be used, the last good one is in effect",
    ),
    (
        seen("ok", store=FleetTrouble(NOW - 8, "/etc/secret: no space left")),
        "store_degraded",
        "▲ what changes is not kept on disk: /etc/secret: no space left",
    ),
    (seen("ok", firing=(alert("FleetDiskFull"),)), "alert", "▲ the secret title"),
    (seen("ok", dropped=FleetTrouble(NOW - 1, "", 12)), "records_dropped", "▲ 12 requests missing from the statistics"),
    (seen("ok", "unknown", "drained"), "server_not_probed", "○ 1 of 3 servers not probed yet"),
    (seen("ok", "maintenance", "maintenance"), "planned", "◆ 2 servers in maintenance, 1 serving"),
    (seen("ok", "maintenance", "drained"), "planned", "◆ 1 server in maintenance, 1 drained, 1 serving"),
    (seen("ok", "draining"), "planned", "◆ 1 server draining, 1 serving"),
    (seen("ok", "drained"), "planned", "◆ 1 server drained, 1 serving"),
    (
        seen("ok", "drained", "draining", "draining", "maintenance"),
        "planned",
        "◆ 1 server in maintenance, 2 draining, 1 drained, 1 serving",
    ),
    (
        seen("ok", "ok", traffic=Traffic(per_second=41.2, first=FirstTokenTimes(9, 0.92))),
        "healthy",
        "● All 2 servers healthy, 41 req/s, TTFT p95 920 ms",
    ),
    (
        seen("ok", "ok", caps=(CapFact("gpu-1", 8, 2), CapFact("gpu-2", 1, 4))),
        "slots_misjudged",
        "● gpu-1 serves 2 requests at once, its max_concurrency is 8, and 1 more: auto follows",
    ),
    (seen("ok"), "healthy", "● The server is healthy, no requests in the last minute"),
]


@pytest.mark.parametrize(("what", "code", "line"), ROWS, ids=[f"{n}-{row[1]}" for n, row in enumerate(ROWS)])
def test_the_first_sentence_that_matches_is_said(what: SummaryInput, code: str, line: str) -> None:
    verdict = Judge().judge(what)
    assert (verdict.code, verdict.line) == (code, line)
    assert verdict.plain
    assert verdict.since <= EPOCH
    assert not any(word in verdict.plain for word in SECRETS), verdict.plain


@pytest.mark.parametrize(
    "firing",
    [alert("FleetVRAMNearFull", "info"), alert("FleetServerDown"), alert("FleetDiskFull", silenced_until=EPOCH + 9)],
)
def test_an_alert_that_is_told_elsewhere_or_silenced_or_small_is_not_in_the_line(firing: Alert) -> None:
    assert judge(seen("ok", firing=(firing,))).code == "healthy"


def test_since_is_when_the_condition_began() -> None:
    assert Judge().judge(seen("ok", "down")).since == EPOCH - 100
    assert Judge().judge(seen("ok", firing=(alert("FleetDiskFull"),))).since == EPOCH - 50
    assert Judge().judge(seen("ok", queue=WAITING)).since == EPOCH - 2, "who waits 12 s has waited 10 s for 2 s"


def after(judge: Judge, *looks: SummaryInput) -> HealthSummary:
    """The verdict after looks, one per second."""
    for n, look in enumerate(looks):
        moved = replace(look.facts, now=look.facts.now + n, at=EPOCH + n)
        verdict = judge.judge(look._replace(facts=moved))
    return verdict


def queue_of(seconds: float, n: int, **more: Any) -> SummaryInput:
    """A queue whose oldest waiter has come so many seconds before the look number `n`."""
    return seen("ok", queue=WAITING._replace(oldest=NOW + n - seconds), **more)


def test_a_queue_is_saturated_since_it_began_and_not_since_its_oldest_waiter_came() -> None:
    steady = [queue_of(12.0, n) for n in range(600)]
    assert after(Judge(), *steady).since == EPOCH - 2
    relaxed = [queue_of(2.0 if 300 <= n < 310 else 12.0, n) for n in range(600)]
    assert after(Judge(), *relaxed).since == EPOCH + 308, "it had come to an end in between"


def test_one_look_at_a_shorter_queue_is_no_new_beginning() -> None:
    assert after(Judge(), *[queue_of(2.0 if n in (30, 31) else 12.0, n) for n in range(60)]).since == EPOCH - 2


def test_what_was_hidden_by_something_worse_has_lasted_all_the_time() -> None:
    paused = QueueFact(paused=True, paused_since=NOW - 500)
    hidden = [queue_of(12.0, n) for n in range(10)]
    worse = [look._replace(facts=replace(look.facts, servers=facts("ok", "down").servers)) for look in hidden]
    after_it = [queue_of(12.0, 10 + n) for n in range(5)]
    verdict = after(Judge(), *worse, *after_it)
    assert (verdict.code, verdict.since) == ("saturated", EPOCH - 2)
    assert after(Judge(), *[seen("ok", queue=paused)] * 5).since == EPOCH - 500


def test_that_all_is_well_has_lasted_since_nothing_else_was_said() -> None:
    looks = [seen("ok", "down")] * 10 + [seen("ok", "ok")] * 20
    verdict = after(Judge(), *looks)
    assert (verdict.code, verdict.since) == ("healthy", EPOCH + 10)


def test_no_server_can_be_used_since_the_last_one_went_whatever_happens_to_them_then() -> None:
    down = facts("down", "down").servers
    looks = [replace(facts("ok"), servers=(down[0], down[1]._replace(since=NOW - 20))) for _ in range(5)]
    looks += [replace(facts("ok"), servers=(down[0], down[1]._replace(state="drained", since=NOW + 4))) for _ in looks]
    verdict = after(Judge(), *[SummaryInput(each, SETTINGS, ()) for each in looks])
    assert (verdict.code, verdict.since) == ("no_server", EPOCH - 20)


def test_each_model_that_cannot_be_served_has_a_beginning_of_its_own() -> None:
    first, second = (seen("ok", unservable=(ModelFact(name, 2, 2),)) for name in ("m:7b", "n:7b"))
    assert after(Judge(), *[first] * 10).since == EPOCH
    assert after(Judge(), *[first] * 10, *[second] * 10).since == EPOCH + 10
    both = seen("ok", unservable=(*first.facts.unservable, *second.facts.unservable))
    assert after(Judge(), *[second] * 10, *[both] * 10).since == EPOCH


def test_each_slow_server_has_a_beginning_of_its_own() -> None:
    looks = []
    for slow in (0, 1):
        paces = {f"gpu-{n}": FirstTokenTimes(20, 5.0 if n == slow else 1.0) for n in range(3)}
        looks += [seen("ok", "ok", "ok", traffic=Traffic(servers=paces))] * 10
    assert after(Judge(), *looks).since == EPOCH + 10


@pytest.mark.parametrize(
    ("lately", "code"),
    [
        ((), "errors"),
        ((Share(0, 0),) * 3, "errors"),
        ((Share(3, 0), Share(9, 0), Share(20, 0)), "errors"),  # too few to tell
        ((Share(300, 21), Share(900, 63), Share(1800, 126)), "errors"),
        ((Share(100, 4), Share(300, 21), Share(1800, 126)), "errors"),  # chance
        ((Share(5, 5), Share(1000, 6), Share(2000, 6)), "errors"),  # it was over, and has begun anew
        ((Share(0, 0), Share(0, 0), Share(300, 0)), "healthy"),  # nobody has asked since, but it was over
        ((Share(8, 1), Share(300, 2), Share(900, 63)), "healthy"),  # one failure is no fault
        ((Share(300, 0), Share(900, 63), Share(1800, 126)), "healthy"),
        ((Share(20, 0), Share(60, 0), Share(200, 0)), "healthy"),
    ],
)
def test_errors_are_said_until_the_fault_is_over(lately: tuple[Share, ...], code: str) -> None:
    traffic = replace(BAD, minutes5=Share(9000, 630), lately=lately)
    assert judge(seen("ok", "ok", traffic=traffic)).code == code


def test_of_a_fault_that_fails_all_one_good_answer_is_the_end() -> None:
    all_failed = replace(BAD, minutes5=Share(31, 30))
    assert judge(seen("ok", traffic=replace(all_failed, lately=(Share(1, 0),)))).code == "healthy"
    assert judge(seen("ok", traffic=replace(all_failed, lately=(Share(1, 1),)))).code == "errors"


def test_errors_say_where_the_server_and_the_model() -> None:
    assert Judge().judge(seen("ok", traffic=BAD)).subjects == ("server:gpu-042", "model:m:7b")
    whole = replace(BAD, culprit=Culprit("", "refused_500", 8, "m:7b"))
    verdict = Judge().judge(seen("ok", traffic=whole))
    assert verdict.headline.endswith(", mostly m:7b answers 500")
    assert verdict.subjects == ("model:m:7b",)
    nobodys = replace(BAD, culprit=Culprit("", "no_server", 8, "m:7b"))
    assert Judge().judge(seen("ok", traffic=nobodys)).headline.endswith("because no server can take them (m:7b)")


def test_the_proxys_own_cpu_is_a_note_and_no_degradation() -> None:
    rule = BY_NAME["FleetCPUHigh"]
    note = replace(alert("FleetCPUHigh"), severity=rule.severity)
    assert rule.severity == "info"
    assert judge(seen("ok", firing=(note,))).code == "healthy"


def test_since_does_not_tremble_with_the_clocks() -> None:
    judge = Judge()
    looks = [Facts(now=NOW + n, at=EPOCH + n + n * 1e-5, servers=facts("ok", "down").servers) for n in range(5)]
    assert {judge.judge(SummaryInput(each, SETTINGS, ())).since for each in looks} == {EPOCH - 100}


def test_subjects_are_what_it_is_about() -> None:
    assert Judge().judge(seen("ok", "down")).subjects == ("server:gpu-1",)
    assert Judge().judge(seen("ok", unservable=UNSERVABLE)).subjects == ("model:m:7b",)
    assert Judge().judge(seen("ok", breakers=(BreakerFact(PAIR, NOW),))).subjects == ("breaker:gpu-9/m:7b",)


def test_names_from_outside_cannot_break_the_line() -> None:
    model = "m\n\x1b[31m" + "x" * 1000
    verdict = Judge().judge(seen("ok", unservable=(ModelFact(model, 1, 1),)))
    assert len(verdict.headline) <= 240
    assert verdict.headline.isprintable()


def run(judge: Judge, *codes: str) -> list[str]:
    """One look per second at a fleet in these states."""
    looks = {"well": ("ok",), "planned": ("ok", "maintenance"), "warn": ("ok", "down"), "crit": ("down",)}
    return [
        judge.judge(SummaryInput(facts(*looks[code], now=NOW + n), SETTINGS, ())).level.value
        for n, code in enumerate(codes)
    ]


def test_it_worsens_after_two_looks_and_improves_after_three() -> None:
    assert run(Judge(), "well", "warn", "warn", "well", "well", "well") == ["ok", "ok", "warn", "warn", "warn", "ok"]


def test_one_bad_look_and_one_good_look_change_nothing() -> None:
    assert run(Judge(), "well", "warn", "well", "warn", "well") == ["ok"] * 5
    assert run(Judge(), "warn", "well", "well", "warn", "well", "well") == ["warn"] * 6


def test_what_follows_the_start_is_said_at_once() -> None:
    judge = Judge()
    assert [judge.judge(seen(state)).code for state in ("unknown", "ok", "unknown")] == [
        "starting",
        "healthy",
        "healthy",
    ]


@pytest.mark.parametrize(
    "states",
    [(("unknown", "unknown"), ("down", "unknown"), ("ok", "unknown"), ("ok", "ok")), ((), ("ok",))],
    ids=["the first servers that answer", "the first server that is added"],
)
def test_a_start_is_neither_worse_nor_longer_than_it_is(states: tuple[tuple[str, ...], ...]) -> None:
    judge = Judge()
    found = [judge.judge(seen(*each)) for each in states]
    assert Level.CRIT not in [each.level for each in found]
    assert found[-1].code == "healthy"


def test_a_shutdown_is_said_at_once_whatever_is_wrong() -> None:
    judge = Judge()
    judge.judge(seen("down"))
    assert judge.judge(seen("down", draining=True)).code == "draining"


def test_bad_looks_of_two_kinds_count_together() -> None:
    assert run(Judge(), "well", "warn", "crit") == ["ok", "ok", "crit"]


def test_what_is_said_of_the_same_thing_follows_at_once() -> None:
    judge = Judge()
    judge.judge(seen("ok", "down"))
    assert judge.judge(seen("ok", "down", "down")).headline.startswith("2 servers down")


def test_one_trouble_of_the_same_weight_replaces_another_in_the_end() -> None:
    judge, store = Judge(), FleetTrouble(NOW - 8, "")
    judge.judge(seen("ok", reload=FleetTrouble(NOW, "")))
    found = [judge.judge(seen("ok", store=store)).code for _ in range(IMPROVE)]
    assert found == ["config_reload_failed"] * (IMPROVE - 1) + ["store_degraded"]


def test_since_of_what_has_no_beginning_is_when_it_was_first_found() -> None:
    judge = Judge()
    for n in range(5):
        look = replace(facts("ok", now=NOW + n, traffic=BAD if n else Traffic()), at=EPOCH + n)
        verdict = judge.judge(SummaryInput(look, SETTINGS, ()))
    assert verdict.code == "errors"
    assert verdict.since == EPOCH + 1  # the second look, though it was not said before the third


LOOKS = st.lists(st.sampled_from(["well", "planned", "warn", "crit"]), min_size=2, max_size=200)


@given(LOOKS)
def test_it_never_changes_faster_than_its_hysteresis(codes: list[str]) -> None:
    said = run(Judge(), *codes)
    order = [level.value for level in (Level.CRIT, Level.WARN, Level.UNKNOWN, Level.PLANNED, Level.OK)]
    changed = 0
    for at in range(1, len(said)):
        if said[at] == said[at - 1]:
            continue
        worse = order.index(said[at]) < order.index(said[at - 1])
        assert at - changed >= (WORSEN if worse else IMPROVE) or not changed
        changed = at


def test_a_verdict_has_a_shape_of_its_own_for_each_level() -> None:
    glyphs = [HealthSummary(level, "c", "h", "p", 0.0).line for level in Level]
    assert glyphs == ["● h", "◆ h", "○ h", "▲ h", "■ h"]
