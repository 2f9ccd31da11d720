"""What the reference orchestrator's own dashboard and tests ask of the admin API beside its document."""

from __future__ import annotations

import pytest
import trio

from fleet.breakers.recovery_log import Failure, Source
from fleet.common.ids import ModelName, Pair, ServerId
from tests.kit.clients.admin import ROOT, ask
from tests.kit.fleets.served import Served, served

MODELS = "llama3:8b:4.7GB,ns/deep:7b:1GB"
A = ServerId("a")


def tell(fleet: Served) -> None:
    """Server a failed twice and recovered; two tests of one of its models, and one of another, have ended."""
    book, now = fleet.system.recovery_log, trio.current_time()
    whole, deep, llama = (Pair(A, ModelName(model)) for model in ("", "ns/deep:7b", "llama3:8b"))
    book.attempt(whole, Source.HEALTH_CHECK, now - 7200.0, failure=Failure("timeout", "late"))
    book.attempt(whole, Source.HEALTH_CHECK, now - 60.0, failure=Failure("connection_refused", "nobody listens"))
    book.attempt(whole, Source.HEALTH_CHECK, now - 30.0)
    book.tested(deep, now - 20.0, 1.0, failure=Failure("first_byte_timeout", "too slow"))
    book.tested(llama, now - 15.0, 1.0)
    book.tested(deep, now - 10.0, 1.0)


async def test_recoveries_of_all_servers_come_in_the_words_of_the_dashboard_too() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        tell(fleet)
        found = await ask(fleet, "GET", "/recovery-failures/stats/all")
        rows = {row["serverId"]: row for row in found["stats"]}
        assert list(rows) == [each["serverId"] for each in found["servers"]] == ["a", "b"]
        a, b = rows["a"], rows["b"]
        assert (a["failureCount"], a["recoveryAttempts"], a["successfulRecoveries"]) == (3, 6, 3)
        assert a["lastFailure"] == pytest.approx(found["servers"][0]["lastSuccessfulRecovery"] - 10_000, abs=1_000)
        assert (b["failureCount"], b["recoveryAttempts"], b["successfulRecoveries"], b["lastFailure"]) == (0, 0, 0, 0)


async def test_the_summary_of_recoveries_tells_recent_failures_from_all() -> None:
    async with served("a", models=MODELS) as fleet:
        tell(fleet)
        found = await ask(fleet, "GET", "/recovery-failures")
        assert (found["totalFailures"], found["recentFailures"]) == (3, 2)
        found = await ask(fleet, "GET", "/recovery-failures?windowMs=30000")
        assert (found["totalFailures"], found["recentFailures"]) == (1, 1)


@pytest.mark.parametrize(
    ("breaker", "tests", "share"),
    [
        ("a:ns/deep:7b", [True, False], 0.5),
        ("a%3Ans%2Fdeep%3A7b", [True, False], 0.5),
        ("a:llama3:8b", [True], 1.0),
        ("a", [True, True, False], 0.6667),
        ("a:never-tested", [], -1.0),
        ("a:no such name", [], -1.0),
        ("some-breaker", [], -1.0),
    ],
)
async def test_the_recovery_tests_of_one_breaker(breaker: str, tests: list[bool], share: float) -> None:
    async with served("a", models=MODELS) as fleet:
        tell(fleet)
        found = await ask(fleet, "GET", f"/metrics/recovery-tests/{breaker}")
        assert [each["success"] for each in found["metrics"]] == tests
        assert (found["totalTests"], found["recoveryProbability"]) == (len(tests), share)
        late = [each for each in found["metrics"] if not each["success"]]
        assert all((each["timeout"], each["error"]) == (True, "too slow") for each in late)
        assert (await ask(fleet, "GET", "/metrics/recovery-tests"))["aggregate"]["totalTests"] == 3


async def test_transitions_of_one_model_can_be_asked_for() -> None:
    async with served("a", models=MODELS) as fleet:
        for model in ("llama3:8b", "ns/deep:7b"):
            await ask(fleet, "POST", f"/circuit-breakers/a/{model}/open")
        path = "/recovery-failures/a/circuit-breaker-transitions"
        assert (await ask(fleet, "GET", path))["count"] == 2
        found = await ask(fleet, "GET", f"{path}?model=NS%2FDeep:7b")
        assert (found["count"], found["transitions"][0]["model"]) == (1, "ns/deep:7b")
        assert (await ask(fleet, "GET", f"{path}?model=other"))["count"] == 0


@pytest.mark.parametrize("own", ["version", "tags", "ps"])
async def test_ollamas_lists_stand_under_the_orchestrators_prefix_too(own: str) -> None:
    async with served("a", "b", models=MODELS) as fleet, fleet.client() as client:
        body = {"model": "llama3:8b", "prompt": "x", "stream": False}
        assert (await client.post("/api/generate", json=body)).status_code == 200
        await fleet.system.probe(A, 5.0)
        found = await client.get(f"{ROOT}/{own}")
        assert (found.status_code, found.json()) == (200, (await client.get(f"/api/{own}")).json())
        assert found.json()


async def test_metrics_stand_under_the_orchestrators_prefix_too() -> None:
    async with served("a", models=MODELS) as fleet, fleet.client() as client:
        found = await client.get(f"{ROOT}/metrics/prometheus")
        assert found.status_code == 200
        assert found.headers["content-type"].startswith("text/plain; version=")
        assert "# HELP ollama_proxy_requests_total" in found.text


async def test_the_aliases_need_a_key_like_what_they_stand_for() -> None:
    keys = [{"name": "ada", "role": "client", "key": "a-very-long-key-of-adas"}]
    security = {"require_api_key": True, "keys": keys}
    bearer = {"authorization": "Bearer a-very-long-key-of-adas"}
    async with served("a", models=MODELS, security=security) as fleet, fleet.client() as client:
        for own in ("version", "tags", "ps", "metrics/prometheus"):
            assert (await client.get(f"{ROOT}/{own}")).status_code == 401, own
            assert (await client.get(f"{ROOT}/{own}", headers=bearer)).status_code == 200, own


@pytest.mark.parametrize(
    "path", ["a/llama3:8b", "a/nope", "a/llama3:8b?type=cooldown", "gone/llama3:8b", "a/no%20name"]
)
async def test_lifting_a_ban_that_there_is_not_removes_nothing(path: str) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        await ask(fleet, "POST", "/bans", {"serverId": "b", "model": "llama3:8b"})
        found = await ask(fleet, "DELETE", f"/bans/{path}")
        assert (found["success"], found["removed"]) == (True, 0)
        assert found["message"].startswith("No ban found for ")
        assert (await ask(fleet, "GET", "/bans"))["count"] == 1


@pytest.mark.parametrize("body", [{}, {"serverId": "b"}])
@pytest.mark.parametrize("model", ["ns/deep:7b", "nobody-has-it"])
async def test_unloading_what_is_not_loaded_unloads_nothing(model: str, body: object) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        found = await ask(fleet, "POST", f"/models/{model}/unload", body)
        assert (found["success"], found["results"]) == (True, [])
        assert found["summary"] == {"totalServers": 0, "successfullyUnloaded": 0, "unloading": 0, "failed": 0}
        assert "is not loaded on" in found["message"]
        assert fleet.system.jobs.all() == []


@pytest.mark.parametrize(("word", "state"), [("open", "OPEN"), ("half-open", "HALF-OPEN"), ("close", "CLOSED")])
async def test_a_breaker_of_a_model_that_no_server_lists_can_be_forced_and_reset(word: str, state: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, "POST", f"/circuit-breakers/a/test-model/{word}")
        assert (found["circuitBreaker"]["state"], found["circuitBreaker"]["serverId"]) == (state, "a")
        assert (await ask(fleet, "GET", "/circuit-breakers/a/test-model"))["stats"]["state"] == state.lower()
        listed = (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"]
        assert [(each["serverId"], each["model"]) for each in listed] == [("a", "test-model:latest")]
        found = await ask(fleet, "POST", "/circuit-breakers/a/test-model/reset")
        assert found["currentState"] == "closed"
        assert len(fleet.system.breakers) == 0


async def test_a_model_forced_open_before_it_is_there_stays_shut_when_it_comes() -> None:
    async with served("a", models=MODELS) as fleet, fleet.client() as client:
        await ask(fleet, "POST", "/circuit-breakers/a/new:1b/open")
        await ask(fleet, "POST", "/servers/a/models/pull", {"model": "new:1b"})
        body = {"model": "new:1b", "prompt": "x", "stream": False}
        await ask(fleet, "PATCH", "/config/queue", {"noServerGrace": 0.001})
        assert (await client.post("/api/generate", json=body)).status_code == 503
        await ask(fleet, "POST", "/circuit-breakers/a/new:1b/reset")
        assert (await client.post("/api/generate", json=body)).status_code == 200


@pytest.mark.parametrize("how", ["pull", "copy"])
@pytest.mark.parametrize(("body", "told"), [({"insecure": True}, True), ({"insecure": False}, None), ({}, None)])
async def test_insecure_reaches_the_server_that_pulls(how: str, body: dict[str, bool], told: bool | None) -> None:
    async with served("a", models=MODELS) as fleet:
        await ask(fleet, "POST", f"/servers/a/models/{how}", {"model": "reg.example:5000/me/own:1b", **body})
        (asked,) = fleet.sims["a"].host.seen("/api/pull")
        assert asked.json().get("insecure") is told
