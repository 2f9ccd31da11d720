"""Rows about breakers."""

from __future__ import annotations

import time
from typing import Any

from tests.web.admin.contract.here import DEEP, STATES, Check, Here, row
from tests.web.admin.contract.setups import failed, half_open


@row("GET /api/orchestrator/circuit-breakers", "/circuit-breakers", setup=failed)
def _(here: Here, found: Any) -> None:
    (shown,) = found["circuitBreakers"]
    assert (shown["serverId"], shown["model"], shown["state"]) == ("a", DEEP, "OPEN")
    assert (shown["failureCount"], shown["errorRate"]) == (3, 1)
    here.lately(shown["lastFailure"])
    assert shown["nextRetryAt"] > 1000 * time.time()
    assert 0 <= shown["lbScore"]["totalScore"] <= 100


@row("GET /api/orchestrator/circuit-breakers/:serverId/:model", f"/circuit-breakers/a/{DEEP}", setup=failed)
async def _(here: Here, found: Any) -> None:
    shown = found["breaker"]
    assert (shown["serverId"], shown["model"], shown["state"], shown["failureCount"]) == ("a", DEEP, "open", 3)
    here.lately(shown["lastFailure"])
    assert (found["key"], found["stats"]["state"]) == (f"a:{DEEP}", "open")
    fresh = (await here.ask("GET", "/circuit-breakers/a/llama3:8b"))["breaker"]
    assert (fresh["state"], fresh["failureCount"], fresh["lastFailure"]) == ("closed", 0, None)


@row("GET /api/orchestrator/circuit-breakers/:serverId", "/circuit-breakers/a", setup=failed)
def _(here: Here, found: Any) -> None:
    states = {each["model"]: each["state"] for each in found["circuitBreakers"]}
    assert states == {DEEP: "open", "llama3:8b": "closed", "nomic-embed-text:latest": "closed"}
    assert (found["serverId"], found["count"], found["stats"]["failureCount"]) == ("a", 3, 3)


@row(
    "POST /api/orchestrator/circuit-breakers/:serverId/:model/reset", f"/circuit-breakers/a/{DEEP}/reset", setup=failed
)
def _(here: Here, found: Any) -> None:
    assert (found["previousState"], found["currentState"], found["testCancelled"]) == ("open", "closed", False)


def _forced_to(state: str) -> Check:
    async def check(here: Here, found: Any) -> None:
        shown = found["circuitBreaker"]
        assert (shown["name"], shown["state"], shown["forcedBy"]) == (f"a:{DEEP}", state, "anonymous")
        here.lately(shown["forcedSince"])
        looked = await here.ask("GET", f"/circuit-breakers/a/{DEEP}")
        assert looked["breaker"]["state"] == state.lower()
        assert looked["breaker"]["state"] in STATES

    return check


for _word, _state in (("open", "OPEN"), ("close", "CLOSED"), ("half-open", "HALF-OPEN")):
    row(
        f"POST /api/orchestrator/circuit-breakers/:serverId/:model/{_word}",
        f"/circuit-breakers/a/{DEEP}/{_word}",
        setup=failed,
    )(_forced_to(_state))


@row("POST /api/orchestrator/circuit-breakers/:serverId/reset", "/circuit-breakers/a/reset", setup=failed)
async def _(here: Here, found: Any) -> None:
    assert found["currentState"] == "closed"
    assert (await here.ask("GET", f"/circuit-breakers/a/{DEEP}"))["breaker"]["failureCount"] == 0


@row(
    "GET /api/orchestrator/servers/:serverId/models/:model/circuit-breaker",
    f"/servers/a/models/{DEEP}/circuit-breaker",
    setup=failed,
)
def _(here: Here, found: Any) -> None:
    shown = found["circuitBreaker"]
    assert (shown["name"], shown["state"]) == (f"a:{DEEP}", "OPEN")
    assert (shown["errorRate"], shown["errorRatePercent"]) == (1, 100)


@row(
    "POST /api/orchestrator/servers/:serverId/models/:model/recovery-test",
    f"/servers/a/models/{DEEP}/recovery-test",
)
async def _(here: Here, found: Any) -> None:
    assert (found["success"], found["breakerState"]) == (False, "closed")
    await half_open(here)
    tested = [await here.ask("POST", f"/servers/{each}/models/{DEEP}/recovery-test") for each in "ab"]
    assert sorted(each["success"] for each in tested) == [False, True], "only one has the model in memory"
    assert {each["breakerState"] for each in tested} == {"half-open"}, "forced, so it stays"
