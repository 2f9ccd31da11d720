"""Figures by REST: every field and unit, over real sockets."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
import trio

from actors.state.messages import RequestRecord
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.simulator import Profile
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served
from web.admin.observability.metrics import gathered

SLOW = Profile(load_seconds=0.0, slots=4, tokens_per_second=20.0)
QUICK = Profile(load_seconds=0.0, slots=4, tokens_per_second=1_000.0)
HOUR = 3_600.0
ZERO = {"p50": 0.0, "p95": 0.0, "p99": 0.0}
WINDOWS = ["1m", "5m", "15m", "1h", "24h"]


async def talk(
    here: Served, model: str = "tiny", tokens: int = 3, stream: bool = False, path: str = "/api/chat"
) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    async with here.client() as client:
        answer = await client.post(path, json={**body, "options": {"num_predict": tokens}})
    return answer.status_code


def past(
    here: Served,
    ago: float,
    *,
    server: str = "a",
    model: str = "tiny:latest",
    outcome: str = "completed",
    seconds: float = 1.0,
    queued: float = 0.0,
    tokens: tuple[int, int] = (0, 0),
) -> None:
    """A request that ended `ago` seconds before now; the process is a week older for it."""
    book, now = here.system.statistics.totals.book, trio.current_time()
    book.began = min(book.began, now - 700_000.0)
    record = RequestRecord(
        "r", "/api/chat", model, "", server, outcome, 200, 1, queued, None, seconds, 1, *tokens, False
    )
    book.note(RequestBatch([record]), now - ago, time.time() - ago)


async def until(condition: Any) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


async def test_an_idle_fleet_has_zeros_everywhere() -> None:
    async with served("a") as here:
        found = await ask(here, "GET", "/metrics")
    assert found["success"] is True
    assert found["timeRange"] == "1h"
    assert found["timestamp"] == pytest.approx(time.time() * 1000, abs=60_000)
    zeros = ("totalRequests", "totalErrors", "totalTokens", "errorRate", "avgLatency", "p95Latency")
    assert {found["global"][name] for name in (*zeros, "requestsPerSecond", "avgWaitTime")} == {0}
    idle = {"requests": 0, "errors": 0, "avgLatency": 0.0, "p95Latency": 0.0, "utilization": 0.0}
    assert found["servers"] == [{"id": "a", "status": "healthy", **idle}]
    assert found["serverMetrics"] == {"a": {"healthy": True, "inFlight": 0, "queued": 0, "models": {}}}
    assert found["lifetime"]["totalRequests"] == 0
    assert found["lifetime"]["since"] == pytest.approx(time.time() * 1000, abs=60_000)


async def test_what_ended_before_the_call_is_in_the_answer() -> None:
    async with served("a", "b", profile=QUICK) as here:
        began = time.time() * 1000
        for _ in range(3):
            assert await talk(here, "tiny", tokens=4) == 200
        assert await talk(here, "nobody-has-this") == 404
        found = await ask(here, "GET", "/metrics")
        whole = found["global"]
        assert (whole["totalRequests"], whole["totalErrors"], whole["errorRate"]) == (4, 1, 0.25)
        assert sum(server["requests"] for server in found["servers"]) == 3
        assert [server["errors"] for server in found["servers"]] == [0, 0]
        assert 0 < whole["avgLatency"] < 5_000
        assert whole["p50Latency"] <= whole["p95Latency"] <= whole["p99Latency"] < 5_000
        assert 0 < whole["requestsPerSecond"] <= 4
        pairs = [server["models"]["tiny:latest"] for server in found["serverMetrics"].values() if server["models"]]
        assert sum(pair["requests"] for pair in pairs) == 3
        assert sum(pair["windows"]["5m"]["tokensGenerated"] for pair in pairs) == 12
        assert sum(pair["windows"]["1m"]["tokensPrompt"] for pair in pairs) > 0
        tokens = [pair["windows"]["24h"][each] for pair in pairs for each in ("tokensGenerated", "tokensPrompt")]
        assert whole["totalTokens"] == sum(tokens) == found["lifetime"]["totalTokens"]
        for pair in pairs:
            assert list(pair["windows"]) == WINDOWS
            assert (pair["successRate"], pair["errorRate"], pair["avgTokensPerRequest"]) == (1.0, 0.0, 4.0)
            assert began - 1 <= pair["lastUsed"] <= time.time() * 1000 + 1
            window = pair["windows"]["1h"]
            assert 0 <= window["minLatency"] <= window["maxLatency"] <= window["latencySum"]
            assert began - 60_000 < window["startTime"] < window["endTime"] <= time.time() * 1000 + 1


async def test_figures_are_sums_of_what_is_known_in_milliseconds() -> None:
    async with served("a") as here:
        for seconds in (1.0, 2.0, 3.0):
            past(here, 30.0, seconds=seconds + 0.5, queued=0.5, tokens=(10, 20))
        past(here, 20.0, seconds=10.5, queued=0.5, outcome="idle_timeout")
        found = await ask(here, "GET", "/metrics")
        whole, (server,) = found["global"], found["servers"]
        assert (whole["totalRequests"], whole["totalErrors"], whole["errorRate"], whole["totalTokens"]) == (
            4,
            1,
            0.25,
            90,
        )
        assert (whole["avgLatency"], whole["avgWaitTime"]) == (4_500.0, 500.0)
        assert whole["p95Latency"] == pytest.approx(10_500, rel=0.05)
        assert whole["requestsPerSecond"] == pytest.approx(4 / HOUR, rel=0.1)
        assert (server["requests"], server["errors"], server["avgLatency"]) == (4, 1, 4_000.0)
        assert server["p95Latency"] == pytest.approx(10_000, rel=0.05)
        pair = found["serverMetrics"]["a"]["models"]["tiny:latest"]
        window = pair["windows"]["1m"]
        assert window["latencySum"] == 16_000
        assert window["latencySquaredSum"] == 114_000_000
        assert (window["minLatency"], window["maxLatency"]) == (1_000, 10_000)
        assert (window["count"], window["errors"]) == (4, 1)
        assert (window["tokensPrompt"], window["tokensGenerated"]) == (30, 60)
        assert pair["percentiles"]["p50"] == pytest.approx(2_000, rel=0.05)
        assert pair["throughput"] == pytest.approx(4 / 60, rel=0.1)
        assert pair["successRate"] == 0.75


RANGES = [("1m", 1), ("30m", 2), ("1h", 2), ("6h", 3), ("24h", 4), ("1d", 4), ("7d", 5), ("168h", 5)]


@pytest.mark.parametrize(("text", "count"), RANGES)
async def test_a_time_range_is_applied_to_everything(text: str, count: int) -> None:
    async with served("a") as here:
        for ago in (200 * HOUR, 5 * 24 * HOUR, 12 * HOUR, 3 * HOUR, 0.3 * HOUR, 5.0):
            past(here, ago, seconds=0.1)
        found = await ask(here, "GET", f"/metrics?timeRange={text}")
        minutes = (time.time() * 1000 - found["startTime"]) / 60_000
        pair = await ask(here, "GET", f"/metrics/a/tiny:latest?timeRange={text}")
    assert found["timeRange"] == pair["timeRange"] == text
    assert found["global"]["totalRequests"] == count
    assert [server["requests"] for server in found["servers"]] == [count]
    shown = found["serverMetrics"]["a"]["models"]["tiny:latest"]
    assert shown["requests"] == count
    assert [shown["windows"][name]["count"] for name in WINDOWS] == [1, 1, 1, 2, 4]
    assert pair["metrics"]["historical"]["24h"]["count"] == 4
    assert pair["metrics"]["derived"]["throughput"] == pytest.approx(count / minutes, rel=0.1, abs=1e-4)


@pytest.mark.parametrize("text", ["", "1s", "8d", "0h", "-1h", "1h1m", "soon", "99999d", "1h%00", "%D9%A1h", "x" * 300])
@pytest.mark.parametrize("path", ["/metrics", "/metrics/a/tiny:latest"])
async def test_a_time_range_that_is_none_is_a_400(path: str, text: str) -> None:
    async with served("a") as here:
        found = await ask(here, "GET", f"{path}?timeRange={text}", status=400)
    assert "timeRange" in found["error"]


async def test_windows_say_where_they_begin() -> None:
    async with served("a") as here:
        past(here, 2 * HOUR)
        found = await ask(here, "GET", "/metrics/a/tiny:latest")
        now = time.time() * 1000
    for name, seconds in (("1m", 60), ("5m", 300), ("15m", 900), ("1h", 3_600)):
        window = found["metrics"]["historical"][name]
        assert window["endTime"] == pytest.approx(now, abs=20_000)
        assert window["startTime"] == pytest.approx(now - seconds * 1000, abs=20_000)
        assert window["count"] == 0


async def test_a_pair_without_traffic_has_zeros_and_one_that_nobody_knows_is_a_404() -> None:
    async with served("a") as here:
        found = await ask(here, "GET", "/metrics/a/tiny:latest")
        assert (found["success"], found["serverId"], found["model"]) == (True, "a", "tiny:latest")
        metrics = found["metrics"]
        assert metrics["realtime"] == {"inFlight": 0, "queued": 0}
        assert metrics["percentiles"] == ZERO
        assert metrics["derived"] == {"successRate": 1.0, "throughput": 0.0, "avgTokensPerRequest": 0.0}
        assert (metrics["lastUsed"], metrics["lifetime"]["since"]) == (None, None)
        assert "streaming" not in metrics
        for window in metrics["historical"].values():
            figures = {name: value for name, value in window.items() if name not in ("startTime", "endTime")}
            assert set(figures.values()) == {0}
        for path in ("/metrics/zzz/tiny:latest", "/metrics/a/nope", "/metrics/a/%20", "/metrics/a/a//b"):
            assert (await ask(here, "GET", path, status=404))["error"]


NAMES = ["ns/coder:7b", "ns%2Fcoder%3A7b", "NS/Coder:7B", "registry.ollama.ai/ns/coder:7b"]


@pytest.mark.parametrize("name", NAMES)
async def test_model_names_with_slashes_and_colons_work_however_they_are_spelt(name: str) -> None:
    async with served("a", models="ns/coder:7b:1GB", profile=QUICK) as here:
        assert await talk(here, "ns/coder:7b") == 200
        found = await ask(here, "GET", f"/metrics/a/{name}")
    assert found["model"] == "ns/coder:7b"
    assert found["metrics"]["historical"]["1m"]["count"] == 1
    assert found["metrics"]["lastUsed"] == pytest.approx(time.time() * 1000, abs=60_000)


async def test_what_runs_and_waits_at_this_moment() -> None:
    async with served("a", profile=SLOW, slots=2) as here, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(partial(talk, here, "tiny", tokens=10_000))
        await until(lambda: here.system.in_flight == 2 and here.system.queries.queue_view().waiting == 1)
        found = await ask(here, "GET", "/metrics")
        pair = await ask(here, "GET", "/metrics/a/tiny:latest")
        assert found["servers"][0]["utilization"] == 1.0
        assert found["serverMetrics"]["a"].items() >= {"inFlight": 2, "queued": 1}.items()
        assert pair["metrics"]["realtime"] == {"inFlight": 2, "queued": 1}
        assert found["global"]["totalRequests"] == 0  # nothing has ended
        nursery.cancel_scope.cancel()


async def test_half_of_the_slots_in_use_is_a_utilization_of_a_half() -> None:
    async with served("a", profile=SLOW, slots=2) as here, trio.open_nursery() as nursery:
        nursery.start_soon(partial(talk, here, "tiny", tokens=10_000))
        await until(lambda: here.system.in_flight == 1)
        assert (await ask(here, "GET", "/metrics"))["servers"][0]["utilization"] == 0.5
        nursery.cancel_scope.cancel()


async def test_streams_are_shown_by_their_first_byte_their_length_and_their_chunks() -> None:
    async with served("a", profile=QUICK) as here:
        assert await talk(here, tokens=5, stream=True) == 200
        assert await talk(here, tokens=5, stream=False) == 200
        found = (await ask(here, "GET", "/metrics/a/tiny:latest"))["metrics"]["streaming"]
        everywhere = (await ask(here, "GET", "/metrics"))["serverMetrics"]["a"]["models"]["tiny:latest"]
    assert everywhere["streamingMetrics"] == found
    assert len(found["recentTTFTs"]) == len(found["recentStreamingDurations"]) == 1
    assert 0 < found["recentTTFTs"][0] < 5_000
    assert found["avgTTFT"] == found["ttftPercentiles"]["p95"] == found["recentTTFTs"][0]
    assert found["recentChunkCounts"][0] >= 5
    assert found["chunkCountPercentiles"]["p50"] == found["avgChunkCount"] == found["recentChunkCounts"][0]


async def test_requests_without_a_model_count_for_the_server_and_have_no_name() -> None:
    async with served("a") as here:
        past(here, 1.0, model="")
        found = await ask(here, "GET", "/metrics")
        assert found["servers"][0]["requests"] == 1
        assert found["serverMetrics"]["a"]["models"] == {}


async def test_a_removed_server_leaves_the_lists_and_its_past_can_still_be_asked_for() -> None:
    async with served("a", "b") as here:
        past(here, 1.0, server="b")
        await here.system.remove_server(ServerId("b"), drain=False)
        found = await ask(here, "GET", "/metrics")
        assert [server["id"] for server in found["servers"]] == list(found["serverMetrics"]) == ["a"]
        assert found["global"]["totalRequests"] == 1
        gone = await ask(here, "GET", "/metrics/b/tiny:latest")
        assert gone["metrics"]["historical"]["1m"]["count"] == 1
        assert gone["metrics"]["realtime"] == {"inFlight": 0, "queued": 0}


async def test_totals_do_not_forget() -> None:
    async with served("a") as here:
        past(here, 500_000.0, tokens=(1, 2))
        past(here, 1.0, outcome="refused_500", tokens=(3, 4))
        found = await ask(here, "GET", "/metrics?timeRange=1h")
        pair = await ask(here, "GET", "/metrics/a/tiny:latest")
    assert found["global"]["totalRequests"] == 1
    totals = {"totalRequests": 2, "totalErrors": 1, "totalTokens": 10}
    assert found["lifetime"].items() >= totals.items()
    assert pair["metrics"]["lifetime"].items() >= totals.items()


async def test_a_thousand_pairs_are_shown_and_others_run_between_each_two() -> None:
    async with served("a", profile=QUICK) as here:
        for ago in (80_000.0, 4_000.0, 100.0, 5.0):
            for number in range(1_000):
                past(here, ago, model=f"m{number}:latest")
        turns = 0

        async def watch() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            found = await gathered(here.system, HOUR, here.system.clock.reading())
            nursery.cancel_scope.cancel()
        assert turns >= 900
        assert len(found[ServerId("a")].models) == 1_000
        shown = await ask(here, "GET", "/metrics")
        assert len(shown["serverMetrics"]["a"]["models"]) == 1_000


@pytest.mark.parametrize("path", ["/metrics", "/metrics/a/tiny:latest", "/stats", "/health"])
async def test_what_the_recorder_has_not_come_to_yet_is_counted_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.state.request_log._REST", 1_000.0)
    async with served("a", profile=QUICK) as here:
        for _ in range(2):
            await talk(here)
        assert here.system.statistics.request_log.seen < 2
        await ask(here, "GET", path)
        assert here.system.statistics.totals.book.fleet.total.requests == 2


async def test_stats_sum_up_the_fleet() -> None:
    async with served("a", "b", slots=3) as here:
        past(here, 20.0, seconds=2.0, tokens=(1, 2))
        past(here, 10.0, seconds=2.0, outcome="no_server", server="")
        found = await ask(here, "GET", "/stats")
        here.system.pause(True)
        await until(lambda: here.system.queries.queue_view().paused)
        paused = await ask(here, "GET", "/stats")
    assert found["success"] is True
    expected = {
        "totalServers": 2,
        "healthyServers": 2,
        "usableServers": 2,
        "totalModels": 3,
        "capacity": 6,
        "inFlightRequests": 0,
        "queuedRequests": 0,
        "queuePaused": False,
        "openCircuitBreakers": 0,
        "circuitBreakers": {},
        "totalRequests": 2,
        "totalErrors": 1,
        "totalTokens": 3,
        "requestsLastHour": 2,
        "errorRate": 0.5,
        "avgLatency": 2_000.0,
        "droppedRecords": 0,
    }
    assert found["stats"].items() >= expected.items()
    assert found["stats"]["requestsPerSecond"] == pytest.approx(2 / 60, rel=0.1)
    assert found["stats"]["p95Latency"] == pytest.approx(2_000, rel=0.05)
    assert 0 < found["stats"]["uptime"] < 60
    assert paused["stats"]["queuePaused"] is True


async def test_the_pair_is_known_under_the_name_that_engineers_use() -> None:
    async with served("a", profile=QUICK) as here:
        await talk(here)
        here.system.statistics.request_log.flush()
        tally = here.system.statistics.totals
        assert tally.requests(ModelName("tiny:latest"), 60.0) == 1
        assert tally.last_used(Pair(ServerId("a"), ModelName("tiny:latest"))) == pytest.approx(time.time(), abs=60.0)
