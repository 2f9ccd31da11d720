"""Failures and recoveries of servers, what breakers made of them, and how recovery tests went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from fleet.breakers import recovery_reports
from fleet.breakers.gate import GateState
from fleet.breakers.recovery_log import Results
from fleet.breakers.recovery_reports import DAY, HOUR, Trend
from fleet.common.ids import ServerId
from fleet.common.model_names import canonical
from web.admin.breakers.recovery_views import (
    FAILURE,
    PATTERN,
    SHORT,
    STATS,
    TEST,
    TRANSITION,
    TYPES,
    failure,
    short,
    stats,
    test,
    transition,
)
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, MS, SHARE, Each, Maybe, OneOf, Said
from web.http.units import epoch_ms

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


@topic.get(
    "/recovery-failures",
    "Attempts to recover, and their failures, over all servers.",
    query=(_window(DAY),),
    returns={
        "success": bool,
        "totalServers": int,
        "serversWithFailures": int,
        "serversWithPersistentFailures": int,
        "totalRecoveryAttempts": int,
        "totalFailures": int,
        "recentFailures": Said(int, "those of the last hour, or of the window if that is shorter"),
        "overallFailureRate": SHARE,
        "topFailingServers": [{"serverId": str, "failureCount": int}],
        "commonErrorTypes": TYPES,
        "timeRange": {"start": EPOCH_MS, "end": EPOCH_MS},
        "complete": Said(bool, "whether everything in the time range is still remembered one by one"),
    },
    seed=True,
)
async def summary(asked: AdminRequest) -> dict[str, Any]:
    now, window = trio.current_time(), asked.query["windowMs"] / 1000
    pages = {server: _page(asked, server) for server in asked.system.servers}
    seen = recovery_reports.summarise(pages, now, window)
    return {
        "success": True,
        "totalServers": seen.servers,
        "serversWithFailures": seen.failing,
        "serversWithPersistentFailures": seen.persistent,
        "totalRecoveryAttempts": seen.attempts,
        "totalFailures": seen.failures,
        "recentFailures": recovery_reports.failures_since(pages.values(), now - min(window, HOUR)),
        "overallFailureRate": round(seen.failures / seen.attempts, 4) if seen.attempts else 0.0,
        "topFailingServers": [{"serverId": server, "failureCount": count} for server, count in seen.top],
        "commonErrorTypes": seen.types,
        "timeRange": {"start": epoch_ms(now - window), "end": epoch_ms(now)},
        "complete": seen.complete,
    }


@topic.get(
    "/recovery-failures/stats/all",
    "Recovery statistics of every server.",
    returns={
        "success": bool,
        "count": int,
        "servers": [STATS],
        "stats": Said([SHORT], "the same servers, in the words of the reference's dashboard"),
    },
    seed=True,
)
async def stats_of_all(asked: AdminRequest) -> dict[str, Any]:
    servers = list(asked.system.servers)
    shown = [_stats(asked, server) for server in servers]
    brief = [short(server, _page(asked, server)) for server in servers]
    return {"success": True, "count": len(shown), "servers": shown, "stats": brief}


@topic.get(
    "/recovery-failures/recent",
    "The newest failures of all servers, newest first.",
    query=(_LIMIT,),
    returns={"success": bool, "count": int, "records": [FAILURE]},
    seed=True,
)
async def recent(asked: AdminRequest) -> dict[str, Any]:
    pages = [_page(asked, server) for server in asked.system.servers]
    shown = [failure(each) for each in recovery_reports.latest(pages, asked.query["limit"])]
    return {"success": True, "count": len(shown), "records": shown}


@topic.get(
    "/recovery-failures/<server>",
    "Recovery statistics of one server; zeros if nothing happened to it.",
    returns={"success": bool, **STATS},
    seed=True,
)
async def stats_of_one(asked: AdminRequest, server: str) -> dict[str, Any]:
    return {"success": True, **_stats(asked, _known(asked, server).state.id)}


@topic.get(
    "/recovery-failures/<server>/history",
    "The failures of one server, newest first.",
    query=(_LIMIT, _OFFSET),
    returns={
        "success": bool,
        "serverId": str,
        "count": int,
        "total": Said(int, "failures that are remembered one by one"),
        "limit": int,
        "offset": int,
        "history": [FAILURE],
    },
    seed=True,
)
async def history(asked: AdminRequest, server: str) -> dict[str, Any]:
    limit, offset = asked.query["limit"], asked.query["offset"]
    failures = list(_page(asked, _known(asked, server).state.id).failures)
    shown = [failure(each) for each in failures[offset : offset + limit]]
    about = {"success": True, "serverId": server, "count": len(shown), "total": len(failures)}
    return {**about, "limit": limit, "offset": offset, "history": shown}


@topic.get(
    "/recovery-failures/<server>/analysis",
    "What the attempts of a time window say: pattern, trend, and what to do.",
    query=(_window(HOUR),),
    returns={
        "success": bool,
        "windowMs": MS,
        "serverId": str,
        "pattern": Said(
            PATTERN,
            "from the last 20 attempts: persistent, if the last 5 or more failed; flapping, if what had recovered "
            "failed anew 3 times; intermittent, if some failed; else, and with fewer than 3 attempts, stable",
        ),
        "trend": Said(
            OneOf(tuple(trend.value for trend in Trend)),
            "failures against the window before: worsening above 1.5 times as many, improving below half",
        ),
        "confidence": Said(SHARE, "n / (n + 5) for n attempts in the window"),
        "recommendations": [str],
        "attempts": int,
        "failures": int,
        "failuresBefore": Said(float, "in the window before"),
        "errorTypes": TYPES,
    },
    seed=True,
)
async def analysis(asked: AdminRequest, server: str) -> dict[str, Any]:
    page = _page(asked, _known(asked, server).state.id)
    seen = recovery_reports.analyse(page, trio.current_time(), asked.query["windowMs"] / 1000)
    return {
        "success": True,
        "windowMs": asked.query["windowMs"],
        "serverId": server,
        "pattern": seen.pattern.value,
        "trend": seen.trend.value,
        "confidence": round(seen.confidence, 2),
        "recommendations": list(seen.advice),
        "attempts": seen.attempts,
        "failures": seen.failures,
        "failuresBefore": round(seen.before, 1),
        "errorTypes": dict(seen.types),
    }


@topic.get(
    "/recovery-failures/<server>/circuit-breaker-impact",
    "What circuit breakers made of one server.",
    returns={
        "success": bool,
        "serverId": str,
        "isImpacted": Said(bool, "whether some breaker is not closed now, or breakers opened 3 times or more"),
        "totalTransitions": int,
        "openTransitions": int,
        "openToHealthyRatio": Said(float, "openings per closing; without a closing, openings"),
        "averageTimeInOpenState": Said(float, "milliseconds, of the open periods that have ended"),
        "modelLevelIssues": Said(int, "openings of models' breakers, which is all of them here"),
        "openNow": Said(int, "breakers that are open or half-open now"),
        "recommendations": [str],
    },
    seed=True,
)
async def impact(asked: AdminRequest, server: str) -> dict[str, Any]:
    cell = _known(asked, server)
    open_now = sum(gate.state is not GateState.OPEN for gate in cell.state.gates.values())
    seen = recovery_reports.impact_of(_page(asked, cell.state.id), open_now)
    return {
        "success": True,
        "serverId": server,
        "isImpacted": seen.impacted,
        "totalTransitions": seen.moves,
        "openTransitions": seen.openings,
        "openToHealthyRatio": round(seen.per_closing, 4),
        "averageTimeInOpenState": round(1000 * seen.mean_open, 1),
        "modelLevelIssues": seen.openings,
        "openNow": open_now,
        "recommendations": list(seen.advice),
    }


@topic.get(
    "/recovery-failures/<server>/circuit-breaker-transitions",
    "The changes of state of a server's circuit breakers, newest first.",
    query=(_LIMIT, Param("model", str, None, "only those of this model, however it is spelled")),
    returns={"success": bool, "serverId": str, "model": Maybe(str), "count": int, "transitions": [TRANSITION]},
    seed=True,
)
async def transitions(asked: AdminRequest, server: str) -> dict[str, Any]:
    model = asked.query["model"]
    moves = reversed(_page(asked, _known(asked, server).state.id).moves)
    wanted = [move for move in moves if model is None or move.pair.model == canonical(model)]
    shown = [transition(move) for move in wanted[: asked.query["limit"]]]
    return {"success": True, "serverId": server, "model": model, "count": len(shown), "transitions": shown}


@topic.post(
    "/recovery-failures/<server>/reset",
    "Forget the failures and recoveries of a server; its breakers stay as they are.",
    action="reset recovery statistics",
    returns={"success": bool, "message": str},
    seed=True,
)
async def reset(asked: AdminRequest, server: str) -> dict[str, Any]:
    cell = _known(asked, server)
    asked.note.about(server=server)
    asked.note.change(before={"attempts": _page(asked, cell.state.id).tried}, after={"attempts": 0})
    found = asked.system.recovery_log.forget(cell.state.id)
    word = "forgotten" if found else "forgotten already"
    return {"success": True, "message": f"failures and recoveries of server {server} are {word}"}


# ---- recovery tests


@topic.get(
    "/metrics/recovery-tests",
    "How recovery tests went, of the servers that there are.",
    returns={
        "success": bool,
        "timestamp": EPOCH_MS,
        "aggregate": {
            "totalTests": int,
            "successes": int,
            "failures": int,
            "timeouts": int,
            "cancellations": int,
            "averageDuration": Said(float, "milliseconds, of those that came to a result"),
        },
        "recoveryProbabilities": Said(Each(SHARE), "successes per result, by server"),
    },
)
async def recovery_tests(asked: AdminRequest) -> dict[str, Any]:
    total = Results()
    each = {server: _page(asked, server).tests for server in asked.system.servers}
    for results in each.values():
        total.add(results)
    aggregate = {
        "totalTests": total.ended + total.cancelled,
        "successes": total.passed,
        "failures": total.failed,
        "timeouts": total.timed_out,
        "cancellations": total.cancelled,
        "averageDuration": round(1000 * total.seconds / total.ended, 1) if total.ended else 0.0,
    }
    shares = {server: round(results.passed / results.ended, 4) for server, results in each.items() if results.ended}
    now = epoch_ms(trio.current_time())
    return {"success": True, "timestamp": now, "aggregate": aggregate, "recoveryProbabilities": shares}


@topic.get(
    "/metrics/recovery-tests/<path:breaker>",
    "The recovery tests of one breaker (`server:model`, or all of a server) that are remembered, newest first.",
    returns={
        "success": bool,
        "timestamp": EPOCH_MS,
        "breakerName": str,
        "metrics": Said([TEST], "empty for what was never tested, and for a breaker that there is not"),
        "recoveryProbability": Said(float, "passed tests of those in `metrics`, 0 to 1; -1: none"),
        "totalTests": int,
    },
)
async def recovery_tests_of(asked: AdminRequest, breaker: str) -> dict[str, Any]:
    server, _, model = breaker.partition(":")
    found = recovery_reports.tests_of(_page(asked, ServerId(server)), canonical(model) if model else None)
    shown = [test(each) for each in found]
    passed = sum(each["success"] for each in shown)
    return {
        "success": True,
        "timestamp": epoch_ms(trio.current_time()),
        "breakerName": breaker,
        "metrics": shown,
        "recoveryProbability": round(passed / len(shown), 4) if shown else -1.0,
        "totalTests": len(shown),
    }


def _known(asked: AdminRequest, server: str) -> ServerCell:
    """Raises ServerNotFound."""
    return asked.system.cell(ServerId(server))


def _page(asked: AdminRequest, server: ServerId) -> ServerLog:
    return asked.system.recovery_log.page(server)


def _stats(asked: AdminRequest, server: ServerId) -> dict[str, Any]:
    return stats(server, _page(asked, server), trio.current_time())
