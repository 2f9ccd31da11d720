"""Failures and recoveries by REST: every route, every field and unit, every refusal."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import trio

from fleet.breakers.recovery_log import Failure, RecoveryLog, ServerLog, Source
from fleet.breakers.state_machine import BreakerState
from fleet.breakers.values import Why
from fleet.common.ids import ANY_MODEL, ModelName, Pair, ServerId
from fleet.scheduling.server_state import Health
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served
from web.admin.route_table import entries

pytestmark = both_lanes

A, B = ServerId("a"), ServerId("b")
ITSELF = Pair(A, ANY_MODEL)
DEEP = Pair(A, ModelName("ns/deep:7b"))
DEAD = Failure("connection_refused", "nobody listens")
ROUTES = [
    (entry.method, entry.path.removeprefix("/api/orchestrator")) for entry in entries() if entry.topic == "recoveries"
]
OF_ONE = [(method, path) for method, path in ROUTES if "<server>" in path]


def near(shown: int | None, moment: float, within: float = 5.0) -> bool:
    """Whether epoch milliseconds are about this many seconds since 1970."""
    assert isinstance(shown, int)
    return abs(shown / 1000 - moment) < within


def page_of(fleet: Served, server: ServerId = A) -> ServerLog:
    return fleet.system.recovery_log.page(server)


class Story:
    """Something to tell the book, in seconds before now."""

    def __init__(self, fleet: Served) -> None:
        self.book: RecoveryLog = fleet.system.recovery_log
        self.now = trio.current_time()
        self.wall = time.time()

    def probe(self, ago: float, failure: Failure | None = DEAD, server: ServerId = A) -> None:
        self.book.attempt(Pair(server, ANY_MODEL), Source.HEALTH_CHECK, self.now - ago, failure=failure)

    def tell(self) -> None:
        """Two failures and a recovery of server a, then a model that fails a trial, and a breaker's life."""
        self.probe(100.0)
        self.probe(90.0, Failure("first_byte_timeout", "too late"))
        self.probe(70.0, None)
        self.book.moved(DEEP, BreakerState.CLOSED, BreakerState.OPEN, Why.STRIKES.value, self.now - 60.0, 5.0)
        self.book.moved(DEEP, BreakerState.OPEN, BreakerState.HALF_OPEN, Why.WAITED.value, self.now - 20.0, 40.0)
        failure = Failure("refused_503", "a trial ended: refused_503")
        self.book.attempt(DEEP, Source.TRIAL, self.now - 10.0, state=BreakerState.HALF_OPEN, failure=failure)
        self.book.moved(DEEP, BreakerState.HALF_OPEN, BreakerState.OPEN, Why.TRIAL_FAILED.value, self.now - 10.0, 10.0)


# ---- nothing happened


async def test_servers_that_nothing_happened_to_show_zeros_everywhere() -> None:
    async with served("a", "b") as fleet:
        seen = await ask(fleet, "GET", "/recovery-failures")
        numbers = ("serversWithFailures", "serversWithPersistentFailures", "totalRecoveryAttempts", "totalFailures")
        assert [seen[name] for name in (*numbers, "overallFailureRate")] == [0] * 5
        assert (seen["totalServers"], seen["topFailingServers"], seen["commonErrorTypes"]) == (2, [], {})
        assert (seen["success"], seen["complete"]) == (True, True)
        every = await ask(fleet, "GET", "/recovery-failures/stats/all")
        assert [each["serverId"] for each in every["servers"]] == ["a", "b"]
        assert every["count"] == 2
        one = await ask(fleet, "GET", "/recovery-failures/a")
        assert one == {"success": True, **every["servers"][0]}
        assert one.pop("circuitBreakerImpact") == {
            "totalTransitions": 0,
            "openStateContributions": 0,
            "lastTransition": None,
            "lastOpenReason": None,
        }
        assert (one.pop("success"), one.pop("serverId"), one.pop("pattern")) == (True, "a", "stable")
        assert not any(one.values())
        assert (await ask(fleet, "GET", "/recovery-failures/recent"))["records"] == []
        assert (await ask(fleet, "GET", "/recovery-failures/a/history"))["history"] == []
        assert (await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-transitions"))["transitions"] == []
        analysis = await ask(fleet, "GET", "/recovery-failures/a/analysis")
        assert (analysis["pattern"], analysis["trend"], analysis["confidence"]) == ("stable", "stable", 0.0)
        assert analysis["recommendations"] == ["Nothing was tried in this window."]
        impact = await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-impact")
        assert (impact["isImpacted"], impact["totalTransitions"], impact["openNow"]) == (False, 0, 0)
        tests = await ask(fleet, "GET", "/metrics/recovery-tests")
        assert not any(tests["aggregate"].values())
        assert tests["recoveryProbabilities"] == {}
        assert len(fleet.system.recovery_log) == 0


@pytest.mark.parametrize(("method", "path"), OF_ONE)
async def test_an_unknown_server_is_a_404_on_every_route(method: str, path: str) -> None:
    async with served("a") as fleet:
        found = await ask(fleet, method, path.replace("<server>", "zzz"), status=404)
        assert found["error"] == "server 'zzz' not found"


BAD = [
    ("?limit=0", "limit must lie between 1 and 1000"),
    ("?limit=1001", "limit must lie between 1 and 1000"),
    ("?limit=x", "limit must be a whole number"),
    ("?offset=-1", "offset must lie between 0 and 1000000"),
    ("?windowMs=999", "windowMs must lie between 1000 and 604800000"),
    ("?windowMs=nan", "windowMs must be a whole number"),
    ("?windowMs=604800001", "windowMs must lie between 1000 and 604800000"),
]


@pytest.mark.parametrize(("query", "sentence"), BAD)
async def test_bad_numbers_are_refused_by_name(query: str, sentence: str) -> None:
    paths = {"limit": ["recent", "a/history", "a/circuit-breaker-transitions"], "offset": ["a/history"]}
    async with served("a") as fleet:
        for path in paths.get(query[1:].partition("=")[0], ["", "a/analysis"]):
            where = "/recovery-failures" + (f"/{path}" if path else "")
            assert (await ask(fleet, "GET", where + query, status=400))["error"] == sentence


# ---- what happened


async def test_the_statistics_of_a_server_are_what_happened_to_it() -> None:
    async with served("a", "b") as fleet:
        story = Story(fleet)
        story.tell()
        seen = await ask(fleet, "GET", "/recovery-failures/a")
        counts = ("totalRecoveryAttempts", "successfulRecoveries", "failedRecoveries", "currentConsecutiveFailures")
        assert [seen[name] for name in counts] == [4, 1, 3, 1]
        assert (seen["failureRate"], seen["averageTimeBetweenFailures"]) == (0.75, 45_000.0)
        assert near(seen["lastRecoveryAttempt"], story.wall - 10)
        assert near(seen["firstRecordedFailure"], story.wall - 100)
        assert near(seen["lastSuccessfulRecovery"], story.wall - 70)
        assert (seen["lastFailureReason"], seen["pattern"]) == ("a trial ended: refused_503", "intermittent")
        impact = seen["circuitBreakerImpact"]
        assert (impact["totalTransitions"], impact["openStateContributions"]) == (3, 2)
        assert near(impact["lastTransition"], story.wall - 10)
        assert impact["lastOpenReason"] == Why.TRIAL_FAILED.value


async def test_failures_are_listed_newest_first_with_every_field_and_in_pages() -> None:
    async with served("a", "b") as fleet:
        story = Story(fleet)
        story.tell()
        story.probe(95.0, server=B)
        whole = await ask(fleet, "GET", "/recovery-failures/a/history")
        assert [whole[name] for name in ("serverId", "count", "total", "limit", "offset")] == ["a", 3, 3, 50, 0]
        newest, timeout, first = whole["history"]
        assert near(newest.pop("timestamp"), story.wall - 10)
        assert newest == {
            "serverId": "a",
            "model": "ns/deep:7b",
            "error": "a trial ended: refused_503",
            "errorType": "server_error",
            "attemptNumber": 4,
            "consecutiveFailures": 1,
            "source": "trial",
            "circuitBreakerState": "half-open",
            "metadata": {"source": "trial", "circuitBreakerState": "half-open"},
        }
        assert (timeout["errorType"], timeout["attemptNumber"], timeout["consecutiveFailures"]) == ("timeout", 2, 2)
        assert (first["model"], first["source"], first["circuitBreakerState"]) == (None, "health_check", "closed")
        page = await ask(fleet, "GET", "/recovery-failures/a/history?limit=1&offset=1")
        assert [page[name] for name in ("count", "total", "limit", "offset")] == [1, 3, 1, 1]
        assert page["history"][0]["attemptNumber"] == 2
        assert (await ask(fleet, "GET", "/recovery-failures/a/history?offset=9"))["history"] == []
        recent = await ask(fleet, "GET", "/recovery-failures/recent?limit=3")
        assert [each["serverId"] for each in recent["records"]] == ["a", "a", "b"]
        assert recent["count"] == 3
        assert (await ask(fleet, "GET", "/recovery-failures/recent"))["count"] == 4


async def test_the_summary_counts_its_window() -> None:
    async with served("a", "b") as fleet:
        story = Story(fleet)
        for ago in range(86_000, 85_990, -1):
            story.probe(float(ago), server=B)
        story.tell()
        story.probe(90_000.0, server=B)
        seen = await ask(fleet, "GET", "/recovery-failures")
        assert near(seen["timeRange"]["start"], time.time() - 86_400)
        assert near(seen["timeRange"]["end"], time.time())
        seen = await ask(fleet, "GET", "/recovery-failures?windowMs=95000")
        assert seen["timeRange"]["end"] - seen["timeRange"]["start"] == pytest.approx(95_000, abs=1)
        assert (seen["serversWithFailures"], seen["totalRecoveryAttempts"], seen["totalFailures"]) == (1, 3, 2)
        assert seen["overallFailureRate"] == 0.6667
        assert seen["topFailingServers"] == [{"serverId": "a", "failureCount": 2}]
        assert seen["commonErrorTypes"] == {"timeout": 1, "server_error": 1}


async def test_persistent_failures_are_counted_and_analysed() -> None:
    async with served("a", "b") as fleet:
        story = Story(fleet)
        for ago in (4000, 3000, 50, 40, 30, 20, 10):
            story.probe(float(ago))
        assert (await ask(fleet, "GET", "/recovery-failures"))["serversWithPersistentFailures"] == 1
        seen = await ask(fleet, "GET", "/recovery-failures/a/analysis")
        assert (seen["windowMs"], seen["serverId"], seen["pattern"], seen["trend"]) == (
            3_600_000,
            "a",
            "persistent",
            "worsening",
        )
        assert (seen["attempts"], seen["failures"], seen["failuresBefore"], seen["confidence"]) == (6, 6, 1.0, 0.55)
        assert seen["errorTypes"] == {"connection_refused": 6}
        assert len(seen["recommendations"]) == 3
        short = await ask(fleet, "GET", "/recovery-failures/a/analysis?windowMs=15000")
        assert (short["windowMs"], short["attempts"], short["trend"]) == (15_000, 1, "stable")


async def test_breakers_impact_and_transitions_are_told() -> None:
    async with served("a", "b") as fleet:
        story = Story(fleet)
        story.tell()
        seen = await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-transitions")
        assert (seen["serverId"], seen["count"]) == ("a", 3)
        newest = seen["transitions"][0]
        assert near(newest.pop("timestamp"), story.wall - 10)
        assert newest == {
            "serverId": "a",
            "model": "ns/deep:7b",
            "previousState": "half-open",
            "newState": "open",
            "reason": "a trial failed",
            "timeInPreviousState": 10_000,
        }
        assert [each["newState"] for each in seen["transitions"]] == ["open", "half-open", "open"]
        assert (await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-transitions?limit=2"))["count"] == 2
        impact = await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-impact")
        expected = {"isImpacted": False, "totalTransitions": 3, "openTransitions": 2, "openToHealthyRatio": 2.0}
        expected |= {"averageTimeInOpenState": 40_000.0, "modelLevelIssues": 2, "openNow": 0}
        assert impact.items() >= expected.items()
        assert (await ask(fleet, "GET", "/recovery-failures/b/circuit-breaker-impact"))["totalTransitions"] == 0


async def test_a_breaker_that_is_open_now_is_an_impact() -> None:
    async with served("a") as fleet:
        await ask(fleet, "POST", "/circuit-breakers/a/tiny/open")
        impact = await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-impact")
        assert (impact["isImpacted"], impact["openNow"], impact["openTransitions"]) == (True, 1, 1)
        (move,) = (await ask(fleet, "GET", "/recovery-failures/a/circuit-breaker-transitions"))["transitions"]
        assert (move["reason"], move["model"]) == ("forced by anonymous", "tiny:latest")


async def test_recovery_tests_are_summed_up_over_the_servers() -> None:
    async with served("a", "b") as fleet:
        book, now = fleet.system.recovery_log, trio.current_time()
        book.tested(DEEP, now, 0.1)
        book.tested(DEEP, now, 0.2, failure=Failure("bad_answer", "answered 500"))
        book.tested(Pair(B, DEEP.model), now, 3.0, failure=Failure("first_byte_timeout"))
        book.cancelled(B)
        book.tested(Pair(ServerId("gone"), DEEP.model), now, 3.0)
        seen = await ask(fleet, "GET", "/metrics/recovery-tests")
        assert near(seen["timestamp"], time.time())
        assert seen["aggregate"] == {
            "totalTests": 4,
            "successes": 1,
            "failures": 1,
            "timeouts": 1,
            "cancellations": 1,
            "averageDuration": 1100.0,
        }
        assert seen["recoveryProbabilities"] == {"a": 0.5, "b": 0.0}


async def test_a_reset_forgets_one_server_and_leaves_its_breakers_alone() -> None:
    async with served("a", "b") as fleet:
        story = Story(fleet)
        story.tell()
        story.probe(5.0, server=B)
        await ask(fleet, "POST", "/circuit-breakers/a/tiny/open")
        said = await ask(fleet, "POST", "/recovery-failures/a/reset")
        assert said == {"success": True, "message": "failures and recoveries of server a are forgotten"}
        assert (await ask(fleet, "GET", "/recovery-failures/a"))["totalRecoveryAttempts"] == 0
        assert (await ask(fleet, "GET", "/recovery-failures/b"))["totalRecoveryAttempts"] == 1
        assert (await ask(fleet, "GET", "/circuit-breakers/a/tiny"))["breaker"]["state"] == "open"
        assert "already" in (await ask(fleet, "POST", "/recovery-failures/a/reset"))["message"]


# ---- with a server that really goes away


async def until(fleet: Served, health: Health, failures: int = 0) -> None:
    with trio.fail_after(60):
        while fleet.system.servers[A].state.health is not health or page_of(fleet).failed < failures:
            await trio.sleep(0.01)


async def test_a_server_that_goes_away_and_comes_back_is_in_every_view() -> None:
    health: dict[str, Any] = {"interval": 0.05, "max_backoff": 0.05}
    async with served("a", "b", health=health) as fleet:
        await fleet.sims["a"].kill()
        await until(fleet, Health.UNHEALTHY, failures=5)
        await fleet.sims["a"].restart()
        await until(fleet, Health.HEALTHY)
        failed = page_of(fleet).failed
        seen = await ask(fleet, "GET", "/recovery-failures/a")
        assert (seen["totalRecoveryAttempts"], seen["failedRecoveries"]) == (failed + 1, failed)
        assert (seen["successfulRecoveries"], seen["currentConsecutiveFailures"]) == (1, 0)
        history = (await ask(fleet, "GET", "/recovery-failures/a/history?limit=1000"))["history"]
        assert [each["consecutiveFailures"] for each in history] == list(range(failed, 0, -1))
        assert {each["errorType"] for each in history} == {"connection_refused"}
        summary = await ask(fleet, "GET", "/recovery-failures")
        assert summary["topFailingServers"] == [{"serverId": "a", "failureCount": failed}]
        assert (await ask(fleet, "GET", "/recovery-failures/b"))["totalRecoveryAttempts"] == 0


async def test_no_view_ever_shows_a_prompt() -> None:
    rules = {"adaptive": False, "open_jitter": 0.0, "open_timeout": 100}
    async with served("a", circuit_breaker=rules) as fleet, fleet.client() as client:
        fleet.sims["a"].host.faults.set("status:503:down")
        with trio.fail_after(60):
            while page_of(fleet).opened < 2:
                await client.post("/api/generate", json={"model": "tiny", "prompt": "a secret", "stream": False})
        shown = [await ask(fleet, method, path.replace("<server>", "a")) for method, path in ROUTES if method == "GET"]
        assert "secret" not in json.dumps(shown)
        (attempt, *_) = page_of(fleet).attempts
        assert (attempt.source, attempt.model, attempt.state) == (Source.TRIAL, "tiny:latest", BreakerState.HALF_OPEN)
