"""The queue and what runs, by REST: every route, field, unit and error, over real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
import trio

from fleet.common.ids import ServerId
from fleet.simulator import Profile
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served

SECRET = "a secret prompt about submarines"
_A = ServerId("a")
SLOW = Profile(load_seconds=0.0, slots=4, tokens_per_second=20.0)


@pytest.fixture
async def fleet() -> AsyncIterator[Served]:
    async with served("a", profile=SLOW, models="tiny:latest:1GB,ns/coder:7b:1GB", slots=2) as here:
        yield here


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


class Talk:
    """A request that is under way, and its answer when there is one."""

    def __init__(self) -> None:
        self.answer: httpx.Response | None = None
        self.ended = trio.Event()

    async def run(self, fleet: Served, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        async with fleet.client(**{"x-fleet-errors": "structured"}) as client:
            self.answer = await client.post(path, json=body, headers=headers)
        self.ended.set()

    async def end(self) -> httpx.Response:
        with trio.fail_after(20):
            await self.ended.wait()
        assert self.answer is not None
        return self.answer


def talk(
    nursery: trio.Nursery,
    fleet: Served,
    request_id: str = "mine",
    path: str = "/api/chat",
    *,
    model: str = "tiny",
    stream: bool = True,
    priority: str = "0",
) -> Talk:
    """A long chat."""
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], "stream": stream, "max_tokens": 10_000}
    body["options"] = {"num_predict": 10_000}
    one = Talk()
    nursery.start_soon(one.run, fleet, path, body, {"X-Request-Id": request_id, "X-Priority": priority})
    return one


def waiting(fleet: Served) -> int:
    return fleet.system.queries.queue_view().waiting


def milliseconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp() * 1000


# ---- the queue


async def test_an_idle_queue_has_the_fields_of_both_references(fleet: Served) -> None:
    found = await ask(fleet, "GET", "/queue")
    expected: dict[str, object] = {
        "currentSize": 0,
        "maxSize": 1000,
        "processing": 0,
        "waiting": 0,
        "avgWaitTime": 0,
        "totalDropped": 0,
    }
    expected |= {"oldestRequest": None, "paused": False, "enabled": True, "byModel": {}, "byPriority": {}, "items": []}
    assert found["queue"].items() >= expected.items()
    assert (found["inFlight"], found["queue"]["why"], found["queue"]["by"]) == ({}, "running since the start", None)
    assert milliseconds(found["queue"]["since"]) <= time.time() * 1000


async def test_who_waits_is_shown_with_times_and_never_a_prompt(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(2):
            talk(nursery, fleet, f"runs{number}")
        await until(lambda: fleet.system.in_flight == 2)
        before = time.time() * 1000
        talk(nursery, fleet, "low", model="ns/coder:7b", priority="low")
        await until(lambda: waiting(fleet) == 1)
        talk(nursery, fleet, "high", priority="5")
        await until(lambda: waiting(fleet) == 2)
        found = await ask(fleet, "GET", "/queue")
        shown = found["queue"]
        assert SECRET not in json.dumps(found)
        assert (shown["currentSize"], shown["processing"], shown["waiting"], shown["totalQueued"]) == (4, 2, 2, 2)
        assert shown["byModel"] == {"tiny:latest": 1, "ns/coder:7b": 1}
        assert shown["byPriority"] == {"5": 1, "-5": 1}
        assert found["inFlight"] == {"a": {"total": 2, "byModel": {"tiny:latest": {"regular": 2, "bypass": 0}}}}
        high, low = shown["items"]
        assert (high["id"], high["model"], high["priority"], high["position"]) == ("high", "tiny:latest", 5, 0)
        assert (low["id"], low["endpoint"]) == ("low", "/api/chat")
        assert before - 50 <= low["enqueueTime"] <= time.time() * 1000 + 50
        assert low["deadline"] - low["enqueueTime"] == pytest.approx(300_000, abs=1_000)
        assert 0 <= high["waitTime"] <= low["waitTime"] < 5_000
        assert milliseconds(shown["oldestRequest"]) == pytest.approx(low["enqueueTime"], abs=1_000)
        assert low["clientId"].startswith("127.0.0.1")
        bounded = (await ask(fleet, "GET", "/queue?limit=1"))["queue"]
        assert ([item["id"] for item in bounded["items"]], bounded["waiting"]) == (["high"], 2)
        nursery.cancel_scope.cancel()


async def test_pausing_makes_everybody_wait_and_says_who_paused_since_when(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        paused = await ask(fleet, "POST", "/queue/pause")
        assert (paused["success"], paused["paused"], paused["by"]) == (True, True, "anonymous")
        assert paused["why"] == "paused by anonymous"
        assert milliseconds(paused["since"]) == pytest.approx(time.time() * 1000, abs=60_000)
        again = await ask(fleet, "POST", "/queue/pause")
        assert milliseconds(again["since"]) == pytest.approx(milliseconds(paused["since"]), abs=1_000)
        talk(nursery, fleet)
        await until(lambda: waiting(fleet) == 1)
        assert (await ask(fleet, "GET", "/queue"))["queue"]["paused"] is True
        resumed = await ask(fleet, "POST", "/queue/resume")
        assert (resumed["paused"], resumed["why"]) == (False, "resumed by anonymous")
        await until(lambda: fleet.system.in_flight == 1)
        assert (await ask(fleet, "POST", "/queue/resume"))["paused"] is False
        nursery.cancel_scope.cancel()


DIALECTS = [
    # path, what of the error object is told
    ("/api/chat", {"code": "SERVICE_UNAVAILABLE", "reason": "QUEUE_CANCELLED"}),
    ("/v1/chat/completions", {"code": "queue_cancelled"}),
    ("/v1/messages", {"type": "overloaded_error"}),
]


@pytest.mark.parametrize(("path", "fields"), DIALECTS)
async def test_a_waiting_request_that_is_cancelled_gets_an_error_in_its_dialect(
    fleet: Served, path: str, fields: dict[str, str]
) -> None:
    async with trio.open_nursery() as nursery:
        await ask(fleet, "POST", "/queue/pause")
        first, second, other = (talk(nursery, fleet, name, path) for name in ("mine", "mine", "other"))
        await until(lambda: waiting(fleet) == 3)
        done = await ask(fleet, "DELETE", "/queue/mine")
        assert done == {"success": True, "id": "mine", "cancelled": 2}
        for cancelled in (await first.end(), await second.end()):
            assert (cancelled.status_code, cancelled.headers["x-fleet-error"]) == (503, "QUEUE_CANCELLED")
            assert cancelled.headers["x-should-retry"] == "false"
            error = cancelled.json()["error"]
            assert error["message"] == "the request was cancelled while it waited"
            assert error.items() >= fields.items()
        assert (waiting(fleet), other.answer) == (1, None)
        assert (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"] == []
        nursery.cancel_scope.cancel()


async def test_cancelling_who_does_not_wait_is_404(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        answer = await ask(fleet, "DELETE", "/queue/nobody", status=404)
        assert answer["error"] == "request 'nobody' does not wait"
        talk(nursery, fleet)
        await until(lambda: fleet.system.in_flight == 1)
        assert "/in-flight" in (await ask(fleet, "DELETE", "/queue/mine", status=404))["details"]
        assert fleet.system.in_flight == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/queue?limit=0", "/queue?limit=1001", "/queue?limit=x", "/in-flight?limit=0"])
async def test_a_limit_that_makes_no_sense_is_refused(fleet: Served, path: str) -> None:
    await ask(fleet, "GET", path, status=400)


# ---- what runs


async def test_a_running_stream_shows_its_progress_and_never_a_word(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        before = time.time() * 1000
        talk(nursery, fleet, model="Tiny", priority="3")
        await until(lambda: any(lease.chunks >= 2 for lease in fleet.system.servers[_A].leases.values()))
        found = await ask(fleet, "GET", "/in-flight")
        assert SECRET not in json.dumps(found)
        assert "imulated" not in json.dumps(found)
        (server,) = found["inFlight"]
        assert (found["success"], found["total"], server["total"], server["serverId"]) == (True, 1, 1, "a")
        assert (server["serverUrl"], server["healthy"]) == (fleet.sims["a"].url, True)
        assert server["byModel"] == {"tiny:latest": {"regular": 1, "bypass": 0}}
        (shown,) = server["streamingRequests"]
        assert server["requests"] == [shown]
        expected = {"id": "mine", "serverId": "a", "model": "Tiny", "hasReceivedFirstChunk": True, "isStalled": False}
        expected |= {"streaming": True, "protocol": "native", "endpoint": "/api/chat", "priority": 3, "handoffCount": 0}
        assert shown.items() >= expected.items()
        assert shown["chunkCount"] >= 2
        assert before - 50 <= shown["startTime"] <= shown["firstByteTime"] <= shown["lastChunkTime"]
        assert shown["lastChunkTime"] <= time.time() * 1000 + 50
        assert (shown["outputTokens"], shown["clientId"].startswith("127.0.0.1")) == (None, True)
        assert 0 <= shown["silentFor"] < 5_000
        nursery.cancel_scope.cancel()


async def test_a_request_in_one_piece_is_no_stream(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        talk(nursery, fleet, stream=False)
        await until(lambda: fleet.system.in_flight == 1)
        (server,) = (await ask(fleet, "GET", "/in-flight"))["inFlight"]
        (shown,) = server["requests"]
        assert server["streamingRequests"] == []
        assert (shown["chunkCount"], shown["firstByteTime"], shown["lastChunkTime"]) == (0, None, None)
        assert (shown["hasReceivedFirstChunk"], shown["waitingFor"]) == (False, "backend")
        nursery.cancel_scope.cancel()


async def test_a_stream_that_stands_still_is_marked() -> None:
    async with served("a", profile=SLOW, timeouts={"idle": 1.0}) as fleet, trio.open_nursery() as nursery:
        fleet.sims["a"].host.faults.set("all:stall-mid-stream:2")
        talk(nursery, fleet)

        async def stalled() -> bool:
            rows = (await ask(fleet, "GET", "/in-flight"))["inFlight"]
            return any(each["isStalled"] and each["silentFor"] >= 500 for row in rows for each in row["requests"])

        with trio.fail_after(20):
            while not await stalled():
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


async def test_the_list_is_bounded_and_the_counts_are_not(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(2):
            talk(nursery, fleet, f"r{number}")
        await until(lambda: fleet.system.in_flight == 2)
        found = await ask(fleet, "GET", "/in-flight?limit=1")
        (server,) = found["inFlight"]
        assert (found["total"], server["total"], len(server["requests"])) == (2, 2, 1)
        nursery.cancel_scope.cancel()


async def test_the_bound_is_for_all_servers_together() -> None:
    async with served("a", "b", profile=SLOW, slots=1) as fleet, trio.open_nursery() as nursery:
        for number in range(2):
            talk(nursery, fleet, f"r{number}")
        await until(lambda: fleet.system.in_flight == 2)
        found = await ask(fleet, "GET", "/in-flight?limit=1")
        assert [len(row["requests"]) for row in found["inFlight"]] == [1, 0]
        assert [row["total"] for row in found["inFlight"]] == [1, 1]
        nursery.cancel_scope.cancel()


STREAMS: list[tuple[str, str]] = [
    ("/api/chat", '{"error":'),
    ("/v1/chat/completions", 'data: {"error":'),
    ("/v1/messages", "event: error"),
]


@pytest.mark.parametrize(("path", "record"), STREAMS)
async def test_a_running_stream_that_is_cancelled_ends_with_its_dialects_error_record(
    fleet: Served, path: str, record: str
) -> None:
    async with trio.open_nursery() as nursery:
        first = talk(nursery, fleet, path=path)
        await until(lambda: any(lease.chunks >= 1 for lease in fleet.system.servers[_A].leases.values()))
        done = await ask(fleet, "DELETE", "/in-flight/mine")
        assert done == {"success": True, "id": "mine", "cancelled": 1}
        answer = await first.end()
        assert answer.status_code == 200
        last = answer.text.rstrip()[-600:]
        assert record in last
        assert "cancelled" in last
        assert (await ask(fleet, "GET", "/circuit-breakers"))["circuitBreakers"] == []
    await fleet.until_idle()
    fleet.assert_nothing_left()


async def test_a_running_request_that_is_cancelled_before_its_answer_gets_503(fleet: Served) -> None:
    async with trio.open_nursery() as nursery:
        first = talk(nursery, fleet, stream=False)
        await until(lambda: fleet.system.in_flight == 1)
        await ask(fleet, "DELETE", "/in-flight/mine")
        answer = await first.end()
        assert (answer.status_code, answer.headers["x-fleet-error"]) == (503, "REQUEST_CANCELLED")
        assert answer.json()["error"]["message"] == "the request was cancelled"


async def test_cancelling_what_does_not_run_is_404(fleet: Served) -> None:
    answer = await ask(fleet, "DELETE", "/in-flight/nobody", status=404)
    assert answer["error"] == "request 'nobody' does not run"
    assert "/queue" in answer["details"]
