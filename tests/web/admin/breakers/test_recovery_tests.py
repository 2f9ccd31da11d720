"""Recovery tests of half-open breakers, by the admin API."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from actors.kit import reply
from fleet.common.ids import ModelName, Pair
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import served
from tests.web.admin.breakers.breaking import MODELS, PLAIN, TO_A, A, fail, path_of, works

pytestmark = both_lanes
TINY = Pair(A, ModelName("tiny:latest"))


# ---- recovery tests


@asynccontextmanager
async def half_open(threshold: int = 5, **config: Any) -> Any:
    """A fleet whose pair is half-open by itself, its model in memory, and nobody tests it but we."""
    rules = PLAIN | {"open_timeout": 1, "recovery_success_threshold": threshold}
    async with served("a", "b", models=MODELS, circuit_breaker=rules, **config) as fleet:
        assert await works(fleet, path=TO_A) == 200
        await fleet.system.probe(A, 5.0)
        tester, fleet.system.breakers.tester = fleet.system.breakers.tester, None
        await fail(fleet, path=TO_A)
        with trio.fail_after(20):
            while (await ask(fleet, "GET", path_of("tiny")))["breaker"]["state"] != "half-open":
                await trio.sleep(0.01)
        fleet.sims["a"].host.faults.clear()
        # Who opens it again finds it open, however late the machine lets him look.
        breakers = fleet.system.breakers
        breakers.configure(replace(breakers.settings, open_timeout=1000.0), enabled=True)
        breakers.tester = tester
        cell = fleet.system.breakers._cells[TINY]
        cell.test_at = float("inf")
        yield fleet


TEST = "/servers/a/models/tiny/recovery-test"


async def test_a_passed_recovery_test_counts_as_a_success_and_enough_of_them_close() -> None:
    async with half_open(threshold=2) as fleet:
        said = await ask(fleet, "POST", TEST)
        assert said == {
            "success": True,
            "message": "the recovery test of tiny:latest on a passed",
            "breakerState": "half-open",
        }
        assert (await ask(fleet, "GET", path_of("tiny")))["stats"]["consecutiveSuccesses"] == 1
        said = await ask(fleet, "POST", TEST)
        assert (said["success"], said["breakerState"]) == (True, "closed")
        said = await ask(fleet, "POST", TEST)
        assert (said["success"], said["breakerState"]) == (False, "closed")
        assert said["error"] == "the breaker is closed; only a half-open one can be tested"


async def test_a_failed_recovery_test_says_why_and_opens_the_breaker_again() -> None:
    async with half_open() as fleet:
        fleet.sims["a"].host.faults.set("status:500:CUDA is gone,paths=/api/generate")
        said = await ask(fleet, "POST", TEST)
        assert (said["success"], said["error"]) == (False, "answered 500: CUDA is gone")
        assert said["breakerState"] == "open"
        assert said["message"] == "the recovery test of tiny:latest on a did not pass"


async def test_a_model_that_is_not_in_memory_is_not_tested() -> None:
    async with served("a", models=MODELS) as fleet:
        await ask(fleet, "POST", path_of("llama3:8b", "half-open"))
        said = await ask(fleet, "POST", "/servers/a/models/llama3:8b/recovery-test")
        assert (said["success"], said["breakerState"]) == (False, "half-open")
        assert said["error"].startswith("no test is possible now")
        assert fleet.sims["a"].host.server.loads_begun == 0


async def test_a_test_that_takes_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.1)
    async with half_open() as fleet:
        fleet.sims["a"].host.faults.set("hang-before-headers,paths=/api/generate")
        said = await ask(fleet, "POST", TEST, status=503)
        assert said["error"] == "no answer from a breaker"
        assert said["details"] == "a test that is under way counts when it ends"
        assert (await ask(fleet, "GET", path_of("tiny")))["stats"]["activeTestsInProgress"] == 1
        reset = await ask(fleet, "POST", path_of("tiny", "reset"))
        assert (reset["previousState"], reset["testCancelled"]) == ("half-open", True)
        aggregate = (await ask(fleet, "GET", "/metrics/recovery-tests"))["aggregate"]
        assert (aggregate["totalTests"], aggregate["cancellations"]) == (1, 1)


async def test_a_reset_of_the_whole_server_cancels_its_test_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.5)
    async with half_open() as fleet:
        fleet.sims["a"].host.faults.set("hang-before-headers,paths=/api/generate")
        await ask(fleet, "POST", TEST, status=503)
        assert (await ask(fleet, "POST", "/circuit-breakers/a/reset"))["testCancelled"] is True
