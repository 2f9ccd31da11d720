"""Failures and recoveries of servers, what breakers made of them, and how recovery tests went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fleet.breakers import recovery_reports
from fleet.breakers.gate import GateState
from fleet.breakers.recovery_log import Results
from fleet.breakers.recovery_reports import DAY, HOUR, Pattern, Trend
from fleet.common.ids import ServerId
from fleet.common.model_names import canonical
from fleet.common.times import ClockReading, milliseconds
from web.admin.breakers.recovery_views import (
    TYPES,
    FailureJson,
    RecoveryStatsJson,
    RecoveryTestJson,
    ShortStatsJson,
    Stats,
    TransitionJson,
    failure,
    short,
    stats,
    test,
    transition,
)
from web.admin.kit.answers import EPOCH_MS, MS, SHARE, Answer, JsonObject, MessageAnswer
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from fleet.breakers.recovery_log import ServerLog

topic = RouteGroup("recoveries", "Failures and recoveries of servers.")

_WEEK: Final = 7 * DAY * 1000
_LIMIT: Final = Param("limit", int, 50, "how many to show at most", 1, 1000)
_OFFSET: Final = Param("offset", int, 0, "how many of the newest to leave out", 0, 1_000_000)


def _window(seconds: float) -> Param:
    about = "how far to look back, in milliseconds"
    return Param("windowMs", int, round(seconds * 1000), about, 1000, _WEEK)


class FailingJson(JsonObject, kw_only=True):
    """A server and how often it failed."""

    server_id: str
    failure_count: int


class TimeRangeJson(JsonObject, kw_only=True):
    """From when to when."""

    start: EPOCH_MS
    end: EPOCH_MS


class RecoveriesAnswer(Answer, kw_only=True):
    """Attempts to recover over all servers."""

    total_servers: int
    servers_with_failures: int
    servers_with_persistent_failures: int
    total_recovery_attempts: int
    total_failures: int
    recent_failures: Annotated[int, "those of the last hour, or of the window if that is shorter"]
    overall_failure_rate: SHARE
    top_failing_servers: list[FailingJson]
    common_error_types: TYPES
    time_range: TimeRangeJson
    complete: Annotated[bool, "whether everything in the time range is still remembered one by one"]


class AllRecoveryStatsAnswer(Answer, kw_only=True):
    """All servers."""

    count: int
    servers: list[RecoveryStatsJson]
    stats: Annotated[list[ShortStatsJson], "the same servers, in the words of the reference's dashboard"]


class RecentFailuresAnswer(Answer, kw_only=True):
    """The newest failures."""

    count: int
    records: list[FailureJson]


class RecoveryStatsAnswer(RecoveryStatsJson):
    """One server; not `kw_only`, so that `success` comes first."""

    success: bool = True


class FailureHistoryAnswer(Answer, kw_only=True):
    """A page of the failures of one server."""

    server_id: str
    count: int
    total: Annotated[int, "failures that are remembered one by one"]
    limit: int
    offset: int
    history: list[FailureJson]


class AnalysisAnswer(Answer, kw_only=True):
    """What the attempts of a window say."""

    window_ms: MS
    server_id: str
    pattern: Annotated[
        Pattern,
        "from the last 20 attempts: persistent, if the last 5 or more failed; flapping, if what had recovered "
        "failed anew 3 times; intermittent, if some failed; else, and with fewer than 3 attempts, stable",
    ]
    trend: Annotated[
        Trend, "failures against the window before: worsening above 1.5 times as many, improving below half"
    ]
    confidence: Annotated[float, "n / (n + 5) for n attempts in the window"]
    recommendations: list[str]
    attempts: int
    failures: int
    failures_before: Annotated[float, "in the window before"]
    error_types: TYPES


class ImpactAnswer(Answer, kw_only=True):
    """What breakers made of a server."""

    server_id: str
    is_impacted: Annotated[bool, "whether some breaker is not closed now, or breakers opened 3 times or more"]
    total_transitions: int
    open_transitions: int
    open_to_healthy_ratio: Annotated[float, "openings per closing; without a closing, openings"]
    average_time_in_open_state: Annotated[float, "milliseconds, of the open periods that have ended"]
    model_level_issues: Annotated[int, "openings of models' breakers, which is all of them here"]
    open_now: Annotated[int, "breakers that are open or half-open now"]
    recommendations: list[str]


class TransitionsAnswer(Answer, kw_only=True):
    """The changes of a server's breakers."""

    server_id: str
    model: str | None
    count: int
    transitions: list[TransitionJson]


class TestTotalsJson(JsonObject, kw_only=True):
    """Recovery tests of all servers together."""

    total_tests: int
    successes: int
    failures: int
    timeouts: int
    cancellations: int
    average_duration: Annotated[float, "milliseconds, of those that came to a result"]


class RecoveryTestsAnswer(Answer, kw_only=True):
    """How recovery tests went."""

    timestamp: EPOCH_MS
    aggregate: TestTotalsJson
    recovery_probabilities: Annotated[dict[ServerId, SHARE], "successes per result, by server"]


class BreakerTestsAnswer(Answer, kw_only=True):
    """How those of one breaker went."""

    timestamp: EPOCH_MS
    breaker_name: str
    metrics: Annotated[list[RecoveryTestJson], "empty for what was never tested, and for a breaker that there is not"]
    recovery_probability: Annotated[float, "passed tests of those in `metrics`, 0 to 1; -1: none"]
    total_tests: int


@topic.get(
    "/recovery-failures",
    "Attempts to recover, and their failures, over all servers.",
    query=(_window(DAY),),
    seed=True,
)
async def summary(asked: AdminRequest) -> RecoveriesAnswer:
    at, window = asked.reading(), asked.query["windowMs"] / 1000
    pages = {server: _page(asked, server) for server in asked.system.servers}
    seen = recovery_reports.summarise(pages, at.now, window)
    return RecoveriesAnswer(
        total_servers=seen.servers,
        servers_with_failures=seen.failing,
        servers_with_persistent_failures=seen.persistent,
        total_recovery_attempts=seen.attempts,
        total_failures=seen.failures,
        recent_failures=recovery_reports.failures_since(pages.values(), at.now - min(window, HOUR)),
        overall_failure_rate=round(seen.failures / seen.attempts, 4) if seen.attempts else 0.0,
        top_failing_servers=[FailingJson(server_id=server, failure_count=count) for server, count in seen.top],
        common_error_types=dict(seen.types),
        time_range=TimeRangeJson(start=at.epoch_ms(at.now - window), end=at.epoch_ms(at.now)),
        complete=seen.complete,
    )


@topic.get(
    "/recovery-failures/stats/all",
    "Recovery statistics of every server.",
    seed=True,
)
async def stats_of_all(asked: AdminRequest) -> AllRecoveryStatsAnswer:
    servers, at = list(asked.system.servers), asked.reading()
    shown = [_stats(RecoveryStatsJson, asked, server, at) for server in servers]
    brief = [short(server, _page(asked, server), at) for server in servers]
    return AllRecoveryStatsAnswer(count=len(shown), servers=shown, stats=brief)


@topic.get(
    "/recovery-failures/recent",
    "The newest failures of all servers, newest first.",
    query=(_LIMIT,),
    seed=True,
)
async def recent(asked: AdminRequest) -> RecentFailuresAnswer:
    at = asked.reading()
    pages = [_page(asked, server) for server in asked.system.servers]
    shown = [failure(each, at) for each in recovery_reports.latest(pages, asked.query["limit"])]
    return RecentFailuresAnswer(count=len(shown), records=shown)


@topic.get(
    "/recovery-failures/<server>",
    "Recovery statistics of one server; zeros if nothing happened to it.",
    seed=True,
)
async def stats_of_one(asked: AdminRequest, server: str) -> RecoveryStatsAnswer:
    return _stats(RecoveryStatsAnswer, asked, _known(asked, server).state.id, asked.reading())


@topic.get(
    "/recovery-failures/<server>/history",
    "The failures of one server, newest first.",
    query=(_LIMIT, _OFFSET),
    seed=True,
)
async def history(asked: AdminRequest, server: str) -> FailureHistoryAnswer:
    at = asked.reading()
    limit, offset = asked.query["limit"], asked.query["offset"]
    failures = list(_page(asked, _known(asked, server).state.id).failures)
    shown = [failure(each, at) for each in failures[offset : offset + limit]]
    return FailureHistoryAnswer(
        server_id=server, count=len(shown), total=len(failures), limit=limit, offset=offset, history=shown
    )


@topic.get(
    "/recovery-failures/<server>/analysis",
    "What the attempts of a time window say: pattern, trend, and what to do.",
    query=(_window(HOUR),),
    seed=True,
)
async def analysis(asked: AdminRequest, server: str) -> AnalysisAnswer:
    page = _page(asked, _known(asked, server).state.id)
    seen = recovery_reports.analyse(page, asked.reading().now, asked.query["windowMs"] / 1000)
    return AnalysisAnswer(
        window_ms=asked.query["windowMs"],
        server_id=server,
        pattern=seen.pattern,
        trend=seen.trend,
        confidence=round(seen.confidence, 2),
        recommendations=list(seen.advice),
        attempts=seen.attempts,
        failures=seen.failures,
        failures_before=round(seen.before, 1),
        error_types=dict(seen.types),
    )


@topic.get(
    "/recovery-failures/<server>/circuit-breaker-impact",
    "What circuit breakers made of one server.",
    seed=True,
)
async def impact(asked: AdminRequest, server: str) -> ImpactAnswer:
    cell = _known(asked, server)
    open_now = sum(gate.state is not GateState.OPEN for gate in cell.state.gates.values())
    seen = recovery_reports.impact_of(_page(asked, cell.state.id), open_now)
    return ImpactAnswer(
        server_id=server,
        is_impacted=seen.impacted,
        total_transitions=seen.moves,
        open_transitions=seen.openings,
        open_to_healthy_ratio=round(seen.per_closing, 4),
        average_time_in_open_state=round(1000 * seen.mean_open, 1),
        model_level_issues=seen.openings,
        open_now=open_now,
        recommendations=list(seen.advice),
    )


@topic.get(
    "/recovery-failures/<server>/circuit-breaker-transitions",
    "The changes of state of a server's circuit breakers, newest first.",
    query=(_LIMIT, Param("model", str, None, "only those of this model, however it is spelled")),
    seed=True,
)
async def transitions(asked: AdminRequest, server: str) -> TransitionsAnswer:
    at, model = asked.reading(), asked.query["model"]
    moves = reversed(_page(asked, _known(asked, server).state.id).moves)
    wanted = [move for move in moves if model is None or move.pair.model == canonical(model)]
    shown = [transition(move, at) for move in wanted[: asked.query["limit"]]]
    return TransitionsAnswer(server_id=server, model=model, count=len(shown), transitions=shown)


@topic.post(
    "/recovery-failures/<server>/reset",
    "Forget the failures and recoveries of a server; its breakers stay as they are.",
    action="reset recovery statistics",
    seed=True,
)
async def reset(asked: AdminRequest, server: str) -> MessageAnswer:
    cell = _known(asked, server)
    asked.note.about(server=server)
    asked.note.change(before={"attempts": _page(asked, cell.state.id).tried}, after={"attempts": 0})
    found = asked.system.recovery_log.forget(cell.state.id)
    word = "forgotten" if found else "forgotten already"
    return MessageAnswer(message=f"failures and recoveries of server {server} are {word}")


# ---- recovery tests


@topic.get(
    "/metrics/recovery-tests",
    "How recovery tests went, of the servers that there are.",
)
async def recovery_tests(asked: AdminRequest) -> RecoveryTestsAnswer:
    total = Results()
    each = {server: _page(asked, server).tests for server in asked.system.servers}
    for results in each.values():
        total.add(results)
    aggregate = TestTotalsJson(
        total_tests=total.ended + total.cancelled,
        successes=total.passed,
        failures=total.failed,
        timeouts=total.timed_out,
        cancellations=total.cancelled,
        average_duration=round(1000 * total.seconds / total.ended, 1) if total.ended else 0.0,
    )
    shares = {server: round(results.passed / results.ended, 4) for server, results in each.items() if results.ended}
    now = milliseconds(asked.system.clock.wall())
    return RecoveryTestsAnswer(timestamp=now, aggregate=aggregate, recovery_probabilities=shares)


@topic.get(
    "/metrics/recovery-tests/<path:breaker>",
    "The recovery tests of one breaker (`server:model`, or all of a server) that are remembered, newest first.",
)
async def recovery_tests_of(asked: AdminRequest, breaker: str) -> BreakerTestsAnswer:
    server, _, model = breaker.partition(":")
    found = recovery_reports.tests_of(_page(asked, ServerId(server)), canonical(model) if model else None)
    at = asked.reading()
    shown = [test(each, at) for each in found]
    passed = sum(each.success for each in shown)
    return BreakerTestsAnswer(
        timestamp=milliseconds(at.wall),
        breaker_name=breaker,
        metrics=shown,
        recovery_probability=round(passed / len(shown), 4) if shown else -1.0,
        total_tests=len(shown),
    )


def _known(asked: AdminRequest, server: str) -> ServerCell:
    """Raises ServerNotFound."""
    return asked.system.cell(ServerId(server))


def _page(asked: AdminRequest, server: ServerId) -> ServerLog:
    return asked.system.recovery_log.page(server)


def _stats(kind: type[Stats], asked: AdminRequest, server: ServerId, at: ClockReading) -> Stats:
    return stats(kind, server, _page(asked, server), at)
