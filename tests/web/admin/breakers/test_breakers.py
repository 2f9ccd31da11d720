"""Circuit breakers by REST: every route, every field, every refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

import pytest

import web.asgi.audited_route
from actors.kit import reply
from actors.kit.mailbox import Promise
from fleet.breakers.state_machine import BreakerState
from fleet.common.ids import ModelName, Pair
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import served
from tests.web.admin.breakers.breaking import MODELS, PLAIN, TO_A, A, fail, path_of, works
from web.admin.route_table import entries

pytestmark = both_lanes
DEEP = Pair(A, ModelName("ns/deep:7b"))
SPELLINGS = ["ns/deep:7b", "ns%2Fdeep:7b", "ns%2Fdeep%3A7b", "NS/Deep:7B", "registry.ollama.ai/ns/deep:7b"]


def near(shown: int | str | None, moment: float, within: float = 50.0) -> bool:
    """Whether epoch milliseconds, or ISO 8601 in UTC, are about this many seconds since 1970."""
    if isinstance(shown, str):
        assert shown.endswith("Z")
        return abs(datetime.fromisoformat(shown).timestamp() - moment) < within
    assert isinstance(shown, int)
    return abs(shown / 1000 - moment) < within


# ---- looking


async def test_pairs_that_never_failed_are_closed_and_looking_creates_nothing() -> None:
    before = time.time()
    async with served("a", models=MODELS) as fleet:
        assert (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"] == []
        for model in ("tiny", "nobody-has-this"):
            seen = await ask(fleet, "GET", path_of(model))
            assert (seen["key"], seen["serverId"], seen["model"]) == (f"a:{model}:latest", "a", f"{model}:latest")
            breaker = seen["breaker"]
            assert (breaker["state"], breaker["failureCount"], breaker["lastFailure"]) == ("closed", 0, None)
            assert near(breaker["since"], before)
            assert (breaker["why"], breaker["next"]) == (
                "nothing has failed lately",
                "opens after 3 more failures in a row",
            )
            assert (breaker["forcedBy"], breaker["forcedSince"]) == (None, None)
            stats = seen["stats"]
            assert stats["state"] == "closed"
            assert not any(value for name, value in stats.items() if name.endswith(("Count", "At")) or "last" in name)
            assert (seen["lbScore"] is None) == (model != "tiny")
        assert (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"] == []
        assert len(fleet.system.breakers) == 0


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_names_with_slashes_and_colons_work_in_every_path_and_mean_one_model(spelling: str) -> None:
    async with served("a", models=MODELS) as fleet:
        assert (await ask(fleet, "GET", path_of(spelling)))["model"] == "ns/deep:7b"
        other = await ask(fleet, "GET", f"/servers/a/models/{spelling}/circuit-breaker")
        assert (other["model"], other["circuitBreaker"]["name"]) == ("ns/deep:7b", "a:ns/deep:7b")
        for word, state in (
            ("open", BreakerState.OPEN),
            ("half-open", BreakerState.HALF_OPEN),
            ("close", BreakerState.CLOSED),
        ):
            await ask(fleet, "POST", path_of(spelling, word))
            view = fleet.system.breakers.get(DEEP)
            assert view is not None
            assert view.state is state
        assert (await ask(fleet, "POST", f"/servers/a/models/{spelling}/recovery-test"))["breakerState"] == "closed"
        await ask(fleet, "POST", path_of(spelling, "reset"))
        assert len(fleet.system.breakers) == 0


async def test_an_open_breaker_shows_what_happened_in_every_view() -> None:
    async with served("a", "b", models=MODELS, circuit_breaker=PLAIN) as fleet:
        await fail(fleet, path=TO_A)
        now = time.time()
        (listed,) = (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"]
        pair = await ask(fleet, "GET", path_of("tiny"))
        named = (await ask(fleet, "GET", "/servers/a/models/tiny/circuit-breaker"))["circuitBreaker"]
        whole = await ask(fleet, "GET", "/circuit-breakers/a")
    assert (listed["serverId"], listed["serverIdOnly"], listed["model"]) == ("a", "a", "tiny:latest")
    of_server = next(each for each in whole["circuitBreakers"] if each["model"] == "tiny:latest")
    assert [listed["state"], named["state"], pair["stats"]["state"], of_server["state"]] == [
        "OPEN",
        "OPEN",
        "open",
        "open",
    ]
    for shown in (listed, named, pair["stats"], of_server):
        assert (shown["failureCount"], shown["successCount"], shown["totalRequestCount"]) == (3, 0, 3)
        assert shown["errorCounts"] == {
            "retryable": 0,
            "non-retryable": 0,
            "transient": 3,
            "permanent": 0,
            "rateLimited": 0,
        }
        assert (shown["errorKinds"], shown["lastFailureReason"]) == ({"refused_503": 3}, "refused_503")
        assert (shown["errorRate"], shown["lastSuccess"], shown["halfOpenStartedAt"]) == (1.0, 0, 0)
        assert near(shown["lastFailure"], now)
        assert near(shown["since"], now)
        assert near(shown["nextRetryAt"], now + 120.0)
        assert shown["why"] == "too many failures in a row"
        assert shown["next"] == shown["nextStep"]
        assert shown["next"].startswith("half-open in 1")
        assert shown["forcedBy"] is None
    assert pair["breaker"]["failureCount"] == 3
    assert near(pair["breaker"]["lastFailure"], now)
    assert named["errorRatePercent"] == 100.0


async def test_a_server_is_the_best_of_its_pairs() -> None:
    async with served("a", "b", models=MODELS, circuit_breaker=PLAIN) as fleet:
        quiet = await ask(fleet, "GET", "/circuit-breakers/a")
        assert quiet["stats"]["state"] == "closed"
        assert quiet["stats"]["why"] == "3 models: 0 open, 0 half-open, 3 closed"
        assert quiet["stats"]["next"] == "nothing to wait for"
        assert {each["model"] for each in quiet["circuitBreakers"]} == {"llama3:8b", "tiny:latest", "ns/deep:7b"}
        await fail(fleet, model="tiny", path=TO_A)
        await fail(fleet, model="llama3:8b", path=TO_A)
        seen = await ask(fleet, "GET", "/circuit-breakers/a")
        stats = seen["stats"]
        assert (seen["count"], stats["state"], stats["failureCount"], stats["totalRequestCount"]) == (3, "closed", 6, 6)
        assert stats["why"] == "3 models: 2 open, 0 half-open, 1 closed"
        assert (stats["errorCounts"]["transient"], stats["errorKinds"]) == (6, {"refused_503": 6})
        assert stats["next"].startswith("tiny:latest: half-open in 1")
        retries = [each["nextRetryAt"] for each in seen["circuitBreakers"] if each["nextRetryAt"]]
        assert abs(stats["nextRetryAt"] - min(retries)) <= 2
        assert stats["lastFailureReason"] == "refused_503"
        await ask(fleet, "POST", path_of("ns/deep:7b", "half-open"))
        assert (await ask(fleet, "GET", "/circuit-breakers/a"))["stats"]["state"] == "half-open"
        await ask(fleet, "POST", path_of("ns/deep:7b", "open"))
        assert (await ask(fleet, "GET", "/circuit-breakers/a"))["stats"]["state"] == "open"


async def test_scores_are_those_that_route_requests() -> None:
    async with served("a", models=MODELS) as fleet:
        before = (await ask(fleet, "GET", path_of("tiny")))["lbScore"]
        await ask(fleet, "POST", path_of("tiny", "half-open"))
        after = (await ask(fleet, "GET", path_of("tiny")))["lbScore"]
        (listed,) = (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"]
    parts = before["components"]
    assert (parts["circuitBreaker"], parts["load"], parts["residency"], parts["priority"]) == (100.0, 100.0, 0.0, 52.5)
    assert after["components"]["circuitBreaker"] == 20.0
    weights = fleet.system.config.load_balancer.weights
    lost = 80.0 * weights.circuit_breaker / sum(weights.model_dump().values())
    assert before["total"] - after["total"] == pytest.approx(lost, abs=0.02)
    assert listed["lbScore"]["totalScore"] == after["total"]
    assert (listed["lbScore"]["circuitBreakerScore"], listed["lbScore"]["timeoutScore"]) == (20.0, None)


async def test_without_the_weighted_policy_there_is_no_score() -> None:
    async with served("a", models=MODELS, load_balancer={"policy": "round_robin"}) as fleet:
        assert (await ask(fleet, "GET", path_of("tiny")))["lbScore"] is None


# ---- forcing and resetting


async def test_forced_open_keeps_traffic_away_until_reset_and_says_by_whom_and_since_when() -> None:
    async with served("a", models=MODELS) as fleet:
        assert await works(fleet) == 200
        now = time.time()
        said = await ask(fleet, "POST", path_of("tiny", "open"))
        assert said["message"] == "the breaker of tiny:latest on a is open until it is reset"
        shown = said["circuitBreaker"]
        assert (shown["name"], shown["state"], shown["forcedBy"]) == ("a:tiny:latest", "OPEN", "anonymous")
        assert near(shown["forcedSince"], now)
        assert shown["forcedSince"] == shown["since"]
        assert shown["why"] == "forced by anonymous"
        assert shown["next"] == "stays open until it is reset (forced by anonymous)"
        assert shown["nextRetryAt"] == 0
        assert await works(fleet) == 503
        reset = await ask(fleet, "POST", path_of("tiny", "reset"))
        assert (reset["previousState"], reset["currentState"], reset["testCancelled"]) == ("open", "closed", False)
        assert await works(fleet) == 200
        assert (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"] == []


async def test_who_forces_is_named_by_his_key_here_and_in_the_audit_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.asgi.audited_route, "KEPT_WITHIN", 0.0)  # there is no store to wait for
    keys = [{"name": "ada", "role": "operator", "key": "a-very-long-key-of-adas"}]
    async with served("a", models=MODELS, security={"keys": keys}) as fleet:
        fleet.system.journal.attached = True
        bearer = {"authorization": "Bearer a-very-long-key-of-adas"}
        said = await ask(fleet, "POST", path_of("tiny", "open"), headers=bearer)
        assert (said["circuitBreaker"]["forcedBy"], said["circuitBreaker"]["why"]) == ("ada", "forced by ada")
        await ask(fleet, "POST", "/circuit-breakers/a/reset", headers=bearer)
        first, second = fleet.system.journal.lines
        assert (first["who"], first["action"], first["outcome"]) == ("ada", "force breaker open", "done")
        assert first["targets"] == {"server": "a", "model": "tiny:latest"}
        assert first["before"] == {"state": "closed", "forcedBy": None}
        assert first["after"] == {"state": "open", "forcedBy": "ada"}
        assert (second["action"], second["targets"]) == ("reset breakers", {"server": "a"})
        assert (second["before"], second["after"]) == ({"closed": 2, "open": 1}, {"closed": 3})


async def test_forced_closed_lets_failures_through_and_forced_half_open_stays() -> None:
    async with served("a", models=MODELS, circuit_breaker=PLAIN) as fleet:
        await ask(fleet, "POST", path_of("tiny", "close"))
        await fail(fleet, 6)
        assert (await ask(fleet, "GET", path_of("tiny")))["breaker"]["state"] == "closed"
        said = await ask(fleet, "POST", path_of("tiny", "half-open"))
        assert (said["circuitBreaker"]["state"], said["circuitBreaker"]["halfOpenAttempts"]) == ("HALF-OPEN", 0)
        assert near(said["circuitBreaker"]["halfOpenStartedAt"], time.time())
        await fail(fleet, 2)
        seen = await ask(fleet, "GET", path_of("tiny"))
        assert (seen["stats"]["state"], seen["stats"]["halfOpenAttempts"]) == ("half-open", 2)
        assert seen["breaker"]["forcedBy"] == "anonymous"


async def test_a_reset_of_what_is_closed_changes_nothing() -> None:
    async with served("a", models=MODELS) as fleet:
        said = await ask(fleet, "POST", path_of("nobody-has-this", "reset"))
        assert (said["previousState"], said["currentState"]) == ("closed", "closed")
        assert len(fleet.system.breakers) == 0


@pytest.mark.parametrize(("word", "state"), [("open", "OPEN"), ("half-open", "HALF-OPEN"), ("close", "CLOSED")])
async def test_a_whole_server_is_forced_and_reset_and_the_others_are_left_alone(word: str, state: str) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        said = await ask(fleet, "POST", f"/circuit-breakers/a/{word}")
        assert (said["serverId"], said["count"], said["skipped"]) == ("a", 3, 0)
        assert {(each["model"], each["state"], each["forcedBy"]) for each in said["circuitBreakers"]} == {
            (model, state, "anonymous") for model in ("llama3:8b", "tiny:latest", "ns/deep:7b")
        }
        assert {view.pair.server for view in fleet.system.breakers.describe()} == {"a"}
        reset = await ask(fleet, "POST", "/circuit-breakers/a/reset")
        assert (reset["count"], reset["previousState"], reset["currentState"]) == (3, state.lower(), "closed")
        assert len(fleet.system.breakers) == 0
        again = await ask(fleet, "POST", "/circuit-breakers/a/reset")
        assert (again["count"], again["previousState"], again["currentState"]) == (0, "closed", "closed")


async def test_a_model_that_is_not_listed_is_shown_and_forced_with_the_others() -> None:
    async with served("a", models=MODELS) as fleet:
        assert (await ask(fleet, "POST", "/circuit-breakers/a/open"))["count"] == 3
        await ask(fleet, "POST", path_of("ghost", "close"))
        seen = await ask(fleet, "GET", "/circuit-breakers/a")
        assert [each["forcedBy"] for each in seen["circuitBreakers"] if each["model"] == "ghost:latest"] == [
            "anonymous"
        ]
        assert (await ask(fleet, "POST", "/circuit-breakers/a/open"))["count"] == 4


async def test_when_there_is_no_room_for_another_breaker_it_says_so() -> None:
    async with served("a", models=MODELS) as fleet:
        fleet.system.breakers._limit = 1
        await ask(fleet, "POST", path_of("tiny", "open"))
        assert "too many" in (await ask(fleet, "POST", path_of("llama3:8b", "open"), status=409))["error"]
        said = await ask(fleet, "POST", "/circuit-breakers/a/open")
        assert (said["count"], said["skipped"]) == (1, 2)


async def test_a_breaker_that_does_not_answer_in_time_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served("a", models=MODELS) as fleet:
        monkeypatch.setattr(reply, "PATIENCE", 0.05)
        monkeypatch.setattr(fleet.system.breakers, "force", lambda pair, state, by: Promise())
        found = await ask(fleet, "POST", path_of("tiny", "open"), status=503)
        assert (found["error"], found["code"]) == ("no answer from a breaker", "SERVICE_UNAVAILABLE")


# ---- refusals


def mine() -> Iterator[tuple[str, str]]:
    for entry in entries():
        if entry.topic in ("breakers", "breaker-orders") and "<server>" in entry.path:
            yield entry.method, entry.path.removeprefix("/api/orchestrator").replace("<path:model>", "tiny")


@pytest.mark.parametrize(("method", "path"), list(mine()))
async def test_an_unknown_server_is_a_404_on_every_route(method: str, path: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, method, path.replace("<server>", "zzz"), status=404)
        assert found["error"] == "server 'zzz' not found"


@pytest.mark.parametrize("name", ["bad name", "a/b/c/d/e", "x" * 400, "sha256:" + "@" * 10])
async def test_what_cannot_be_a_model_name_is_a_404(name: str) -> None:
    async with served("a", models=MODELS) as fleet:
        for method, word in (("GET", ""), ("POST", "open"), ("POST", "reset")):
            found = await ask(fleet, method, path_of(quote(name, safe=""), word), status=404)
            assert "is not a valid model name" in found["error"]
            assert len(found["error"]) < 300


@pytest.mark.parametrize(("method", "path"), list(mine()))
async def test_with_breakers_off_orders_are_refused_and_views_say_why(method: str, path: str) -> None:
    async with served("a", models=MODELS, enable_circuit_breaker=False) as fleet:
        path = path.replace("<server>", "a")
        seen = await ask(fleet, method, path, status=409 if method == "POST" else 200)
        if method == "POST":
            assert seen["error"] == "circuit breakers are switched off"
        assert len(fleet.system.breakers) == 0
        view = (await ask(fleet, "GET", path_of("tiny")))["breaker"]
        assert (view["why"], view["next"]) == ("breakers are switched off", "stays closed while breakers are off")
