"""Every fault of the simulated server, over real sockets; the probabilities and times in memory."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from fleet.simulator import Profile
from tests.kit.clients.raw import ask_once, chunks, json_of, parse, read_until, request_bytes
from tests.kit.fleets.backends import FakeBackend
from tests.kit.fleets.tcp import TcpSim, sim_server
from web.simulator.engine.errors import BUSY, RUNNER_BROKE, RUNNER_STOPPED
from web.simulator.engine.faults import KINDS, BadFault, FaultBook, parse_fault

FAST = Profile(load_seconds=0.02, tokens_per_second=5000, prefill_per_second=100_000)
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
MESSAGES = {**CHAT, "max_tokens": 100, "stream": True}


@pytest.fixture
async def sim() -> AsyncIterator[TcpSim]:
    with trio.fail_after(60):
        async with sim_server("llama3:8b:4.7GB", FAST) as sim:
            yield sim


async def dial(sim: TcpSim) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", sim.port)


async def chat(sim: TcpSim, body: object = CHAT, path: str = "/api/chat") -> bytes:
    return await ask_once(await dial(sim), "POST", path, body)


async def read_to_reset(stream: trio.SocketStream) -> bytes:
    """What came before the reset; fails if there was none."""
    data = b""
    reason: BaseException | None = None
    try:
        while part := await stream.receive_some(65536):
            data += part
    except trio.BrokenResourceError as error:
        reason = error.__cause__
    assert isinstance(reason, OSError), "closed, not reset"
    assert reason.errno == errno.ECONNRESET
    return data


async def test_refuse_closes_the_listener_and_resets_kept_connections(sim: TcpSim) -> None:
    kept = await dial(sim)
    await kept.send_all(request_bytes("GET", "/"))
    await read_until(kept, b"running")
    sim.host.faults.set("refuse")
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(OSError, match="connect"):
        await dial(sim)
    await kept.send_all(request_bytes("GET", "/"))
    await read_to_reset(kept)
    await kept.aclose()
    sim.host.faults.clear()
    await trio.testing.wait_all_tasks_blocked()
    assert b"Ollama is running" in await ask_once(await dial(sim), "GET", "/")


@pytest.mark.parametrize(
    ("fault", "seen"),
    [("reset-before-headers", 0), ("reset-after-headers", 0), ("reset-mid-stream:0", 0), ("reset-mid-stream:3", 3)],
)
async def test_resets_are_tcp_resets(sim: TcpSim, fault: str, seen: int) -> None:
    sim.host.faults.set(fault)
    async with await dial(sim) as stream:
        await stream.send_all(request_bytes("POST", "/api/chat", CHAT))
        data = await read_to_reset(stream)
    assert data.startswith(b"HTTP/1.1 200") is (fault != "reset-before-headers")
    assert data.count(b'"done":false') == seen


async def test_an_unstreamed_answer_is_cut_in_half(sim: TcpSim) -> None:
    sim.host.faults.set("reset-mid-stream:3")
    async with await dial(sim) as stream:
        await stream.send_all(request_bytes("POST", "/api/chat", {**CHAT, "stream": False}))
        data = await read_to_reset(stream)
    assert data.startswith(b"HTTP/1.1 200")
    assert not data.endswith(b"}")


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/api/chat", CHAT, {"error": BUSY}),
        ("/v1/chat/completions", CHAT, {"error": {"message": BUSY, "type": "api_error", "param": None, "code": None}}),
    ],
)
async def test_a_status_comes_in_the_dialect_of_the_route(
    sim: TcpSim, path: str, body: object, error: dict[str, object]
) -> None:
    sim.host.faults.set("status:503")
    assert json_of(await chat(sim, body, path)) == (503, error)


async def test_a_status_may_bring_its_own_words(sim: TcpSim) -> None:
    sim.host.faults.set("status:500:the dog: it ate it")
    assert json_of(await chat(sim)) == (500, {"error": "the dog: it ate it"})


async def test_a_crashed_runner_is_a_500_and_reloads_next_time(sim: TcpSim) -> None:
    sim.host.faults.set("runner-crash,times=1")
    assert json_of(await chat(sim)) == (500, {"error": RUNNER_STOPPED})
    assert parse(await chat(sim))[0] == 200
    assert sim.host.server.loads_begun == 2


async def test_a_runner_that_dies_in_the_middle_says_so_on_native_streams_only(sim: TcpSim) -> None:
    sim.host.faults.set("runner-crash-mid:2")
    lines = chunks((await chat(sim)).partition(b"\r\n\r\n")[2])
    assert len(lines) == 3
    assert json.loads(lines[-1]) == {"error": RUNNER_BROKE}
    openai = parse(await chat(sim, {**CHAT, "stream": True}, "/v1/chat/completions"))[2]
    assert b"[DONE]" not in openai
    assert b'"model":""' in openai
    anthropic = parse(await chat(sim, MESSAGES, "/v1/messages"))[2]
    assert b"content_block_delta" in anthropic
    assert b"message_stop" not in anthropic


async def test_a_crash_takes_the_other_jobs_of_the_runner_along(sim: TcpSim) -> None:
    long = {**CHAT, "options": {"num_predict": 50_000}}
    async with await dial(sim) as victim:
        await victim.send_all(request_bytes("POST", "/api/chat", long))
        await read_until(victim, b'"done":false')
        (runner,) = sim.host.server.runners.values()
        sim.host.server.crash(runner, trio.current_time())
        assert RUNNER_BROKE.encode() in await read_until(victim, b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "body", "mark"),
    [
        ("/api/chat", CHAT, b'"done":true'),
        ("/v1/chat/completions", {**CHAT, "stream": True}, b"[DONE]"),
        ("/v1/messages", MESSAGES, b"message_stop"),
    ],
)
async def test_no_done_is_a_clean_end_without_the_last_chunk(sim: TcpSim, path: str, body: object, mark: bytes) -> None:
    assert mark in await chat(sim, body, path)
    sim.host.faults.set("no-done")
    answer = await chat(sim, body, path)
    assert mark not in answer
    assert answer.endswith(b"0\r\n\r\n")


async def test_garbage_is_not_http(sim: TcpSim) -> None:
    sim.host.faults.set("garbage")
    assert not (await chat(sim)).startswith(b"HTTP/")


@pytest.mark.parametrize("stream", [True, False])
async def test_wrong_length_promises_more_than_it_sends(sim: TcpSim, stream: bool) -> None:
    sim.host.faults.set("wrong-length")
    _, headers, body = parse(await chat(sim, {**CHAT, "stream": stream}))
    assert int(headers["content-length"]) > len(body) > 0


@pytest.mark.parametrize(("fault", "seen"), [("hang-before-headers", 0), ("stall-mid-stream:2", 2)])
async def test_silence_lasts_until_the_client_leaves(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, fault: str, seen: int
) -> None:
    backend = FakeBackend(nursery, faults=[fault])
    stream = await backend.dial()
    await stream.send_all(request_bytes("POST", "/api/chat", CHAT))
    data = b""
    with trio.move_on_after(10_000):
        while True:
            data += await stream.receive_some(65536)
    assert data.count(b'"done":false') == seen
    assert backend.host.active_requests == 1
    await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert backend.host.active_requests == 0
    assert backend.host.requests[-1].client_left


async def test_slow_drip_pauses_before_every_chunk(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(nursery, faults=["slow-drip:30"])
    start = trio.current_time()
    await ask_once(await backend.dial(), "POST", "/api/chat", {**CHAT, "options": {"num_predict": 10}})
    assert 300 <= trio.current_time() - start < 310


async def test_refusing_may_end_by_itself(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    backend = FakeBackend(nursery, faults=["refuse:30"])
    with pytest.raises(ConnectionRefusedError):
        await backend.dial()
    await trio.sleep(31)
    assert b"Ollama is running" in await ask_once(await backend.dial(), "GET", "/")


async def test_a_reset_in_memory_breaks_both_directions(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(nursery, faults=["reset-mid-stream:1"])
    stream = await backend.dial()
    await stream.send_all(request_bytes("POST", "/api/chat", CHAT))
    await read_until(stream, b'"done":false')
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_faults_hit_inference_unless_told_otherwise(sim: TcpSim) -> None:
    sim.host.faults.set("status:500")
    assert parse(await ask_once(await dial(sim), "GET", "/api/tags"))[0] == 200
    sim.host.faults.set("all:status:500")
    assert parse(await ask_once(await dial(sim), "GET", "/api/tags"))[0] == 500
    sim.host.faults.set("status:500,paths=/api/ps|/api/version")
    assert parse(await ask_once(await dial(sim), "GET", "/api/ps"))[0] == 500
    assert parse(await chat(sim))[0] == 200


async def test_faults_are_set_over_http_too(sim: TcpSim) -> None:
    status, state = json_of(await ask_once(await dial(sim), "POST", "/sim/faults", {"faults": ["all:status:500"]}))
    assert (status, state["faults"]) == (200, ["all:status:500"])
    status, error = json_of(await ask_once(await dial(sim), "POST", "/sim/faults", {"faults": ["nonsense"]}))
    assert (status, "unknown fault" in error["error"]) == (400, True)
    state = json_of(await ask_once(await dial(sim), "GET", "/sim/state"))[1]
    assert (state["simulated"], state["faults"], state["open_connections"]) == (True, ["all:status:500"], 1)


async def test_a_killed_server_resets_refuses_and_comes_back_on_its_port(sim: TcpSim) -> None:
    port = sim.port
    async with await dial(sim) as stream:
        await stream.send_all(request_bytes("POST", "/api/chat", {**CHAT, "options": {"num_predict": 50_000}}))
        await read_until(stream, b'"done":false')
        await sim.kill()
        await read_to_reset(stream)
    with pytest.raises(OSError, match="connect"):
        await dial(sim)
    await sim.restart()
    assert sim.port == port
    assert parse(await chat(sim))[0] == 200
    assert (sim.host.open_connections, sim.host.active_requests) == (0, 0)


@pytest.mark.parametrize(
    "flag", ["", "nonsense", "status", "status:x", "garbage:1", "no-done,often=1", "no-done,times=x"]
)
def test_unreadable_flags_are_refused(flag: str) -> None:
    with pytest.raises(BadFault):
        parse_fault(flag)


def test_the_parts_of_a_flag() -> None:
    fault = parse_fault("all:status:503:busy: really,times=3@0.5")
    assert (fault.kind, fault.count, fault.text) == ("status", 503, "busy: really")
    assert (fault.everywhere, fault.times, fault.probability) == (True, 3, 0.5)
    assert len(KINDS) == 13


def test_a_probability_is_kept_by_the_seed() -> None:
    def hits(seed: int) -> list[bool]:
        book = FaultBook(random.Random(seed), lambda: 0.0)
        book.set("status:500@0.3")
        return [bool(book.draw("/api/chat", inference=True)) for _ in range(1000)]

    assert hits(1) == hits(1)
    assert 230 < sum(hits(1)) < 370


def test_setting_a_bad_flag_changes_nothing() -> None:
    book = FaultBook(random.Random(0), lambda: 0.0)
    book.set("garbage")
    with pytest.raises(BadFault):
        book.set("no-done", "nonsense")
    assert book.flags == ["garbage"]


async def test_a_server_in_memory_is_killed_and_restarted_alike(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(nursery)

    async def kill_later() -> None:
        await trio.sleep(5)
        backend.kill()

    async with backend.client() as client:
        nursery.start_soon(kill_later)
        with pytest.raises(httpx.ReadError):
            await client.post("/api/chat", json={**CHAT, "options": {"num_predict": 500}})
        with pytest.raises(httpx.ConnectError):
            await client.get("/api/tags")
        backend.restart()
        assert (await client.get("/api/ps")).json() == {"models": []}
    assert backend.dials == 3


async def test_connections_are_refused_by_chance(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    backend = FakeBackend(nursery, faults=["refuse@0.5"])
    refused = 0
    for _ in range(100):
        stream = await backend.dial()
        try:
            refused += not await ask_once(stream, "GET", "/")
        except trio.BrokenResourceError:
            refused += 1
    assert 30 < refused < 70
    assert backend.host.open_connections == 0
