"""What the fleet must reach and aims at, and the verdict on what was measured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.reporting.results import Results, Spread

Measure = Callable[[Results], Spread | None]


@dataclass(frozen=True)
class Target:
    """One row of the yardstick. `scenario` and `sides` explain a figure that is missing."""

    what: str
    measure: str
    must: float
    aim: float
    unit: str
    value: Measure
    scenario: str = ""
    sides: tuple[str, ...] = ("fleet",)
    less_is_better: bool = False


@dataclass(frozen=True)
class Verdict:
    target: Target
    measured: Spread | None
    words: str


def judge(target: Target, measured: float) -> str:
    """The verdict on one figure, at the precision in which targets are written."""
    value = round(measured, 2)
    reaches = value.__le__ if target.less_is_better else value.__ge__
    if reaches(target.aim):
        return "aim met"
    return "must met" if reaches(target.must) else "MISSED"


def verdicts(results: Results) -> Iterator[Verdict]:
    for target in TARGETS:
        measured = target.value(results)
        if measured:
            yield Verdict(target, measured, judge(target, measured.median))
        else:
            yield Verdict(target, None, results.reason(target.scenario, *target.sides))


def _against(
    what: str, scenario: str, rival: str, bounds: tuple[float, float], metric: str = "rate", less: bool = False
) -> Target:
    words = {"rate": "per second", "p50_us": "median latency"}[metric]
    return Target(
        what,
        f"{words} against {rival}",
        *bounds,
        "x",
        lambda results: results.ratio(scenario, metric, "fleet", rival),
        scenario,
        ("fleet", rival),
        less,
    )


def _at_most(
    what: str, measure: str, bounds: tuple[float, float], unit: str, scenario: str, value: Measure, *others: str
) -> Target:
    return Target(what, measure, *bounds, unit, value, scenario, ("fleet", *others), less_is_better=True)


def _figure(scenario: str, metric: str, scale: float = 1) -> Measure:
    def value(results: Results) -> Spread | None:
        found = results.spread(scenario, "fleet", metric)
        return found and Spread(found.median * scale, found.low * scale, found.high * scale)

    return value


def _errors(scenario: str) -> Measure:
    """Of the worst round: one round without errors excuses nothing."""

    def value(results: Results) -> Spread | None:
        found = results.spread(scenario, "fleet", "errors")
        return found and Spread(found.high, found.low, found.high)

    return value


def _added_first_token(results: Results) -> Spread | None:
    found = results.difference("streams_1000", "first_p50_us", "fleet", "direct")
    return found and Spread(found.median / 1e3, found.low / 1e3, found.high / 1e3)


def _rivals() -> Iterator[Target]:
    """Rivals that speak only /v1 are met there; the fleet is measured on /v1 as well."""
    shorts, bursts = "short answers, 32 connections", "100-token bursts, 32 connections"
    for rival, prefix, bounds in (
        ("litellm", "openai_", (100, 200)),
        ("orchestrator", "", (20, 40)),
        ("naive", "", (20, 40)),
        ("olla", "", (0.5, 1.0)),
    ):
        where = ", on /v1" if prefix else ""
        yield _against(shorts + where, f"{prefix}short_32", rival, bounds)
        yield _against(bursts + where, f"{prefix}burst_32", rival, bounds)


def _beside() -> Iterator[Target]:
    """Those who look at the fleet, or change it, must not be felt by those who use it."""
    for scenario, who in (("admin", "10 admin calls a second"), ("dashboards", "100 live clients")):
        for what, metric in (
            ("1,000 live streams, first token", "x burst first_p99_us"),
            ("1,000 live streams, gaps between tokens", "x burst gap_p99_us"),
            ("short answers, 32 connections", "x short p99_us"),
        ):
            measure = f"99th percentile with {who} against without"
            yield _at_most(what, measure, (1.1, 1.05), "x", scenario, _figure(scenario, metric))


STREAMS_1000, STREAMS_4000 = "1,000 live streams at 30 tokens/s", "4,000 live streams at 30 tokens/s"
IDLE = "CPU at rest, 200 servers probed, nobody watches"
WATCHED = "CPU at rest, added by 100 live clients"
FIRST_TOKEN = "added median time to first token"
FAILING = "1 of 3 servers fails 1 request in 33"
ROUTING = "200 servers x 50 models, 5,000 queued"
START = "process start to first request served, 10 servers"

TARGETS: tuple[Target, ...] = (
    _against("short answers, 32 connections", "short_32", "nginx", (0.25, 0.5)),
    _against("short answers, 1 connection", "short_1", "nginx", (1.5, 1.15), "p50_us", less=True),
    _against("100-token bursts, 32 connections", "burst_32", "nginx", (0.6, 1.0)),
    _against(STREAMS_1000, "streams_1000", "direct", (0.97, 1.0)),
    _at_most(STREAMS_1000, FIRST_TOKEN, (5, 2), "ms", "streams_1000", _added_first_token, "direct"),
    _against(STREAMS_4000, "streams_4000", "nginx", (0.6, 0.9)),
    _at_most(STREAMS_4000, "failures", (0, 0), "streams", "streams_4000", _errors("streams_4000")),
    _at_most("memory per live stream", "RSS growth / streams", (48, 24), "KiB", "memory", _figure("memory", "KiB")),
    *_rivals(),
    _at_most(FAILING, "errors that clients see", (0, 0), "requests", "failing", _errors("failing")),
    _at_most("routing decision", ROUTING, (60, 25), "us", "routing", _figure("routing", "us")),
    *_beside(),
    _at_most("start", START, (1.0, 0.5), "s", "cold_start", _figure("cold_start", "ms", 1e-3)),
    _at_most("idle", IDLE, (5, 2), "% of a core", "idle", _figure("idle", "% of a core")),
    _at_most("watched", WATCHED, (5, 2), "% of a core", "dashboards", _figure("dashboards", "% of a core")),
)
