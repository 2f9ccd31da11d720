"""The hot routes: what becomes of a request, of its errors, and of a client that leaves."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import pytest
import trio
import trio.testing

from fleet.common.errors import BackendError, FleetError, ModelNotFound, NoServer, Phase, QueueFull
from fleet.protocol.call import Call, Downstream
from tests.kit.clients.lanes import EDGE, both_lanes
from tests.web.edge.raw import head
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

CHAT = b'{"model":"M","messages":[{"role":"user","content":"x"}],"options":{"num_ctx":512}}'


async def test_a_chat_request_becomes_a_call(lane: str) -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        wire = await server.connect()
        answer = await wire.ask("POST", "/api/chat?x=1", CHAT, "X-Priority: 3", "X-Request-Id: mine")
        assert (answer.status, answer.body, answer["x-request-id"]) == (200, b"hi", "mine")
    (call,) = system.calls
    assert (call.model, call.asked_model, call.stream, call.priority) == ("m:latest", "M", True, 3)
    assert (call.method, call.target, call.endpoint, call.body) == ("POST", "/api/chat?x=1", "/api/chat", CHAT)
    # who asks is what the edge says; here nobody has said it to the app
    assert (call.request_id, call.client) == ("mine", "127.0.0.1" if lane == EDGE else "")


async def test_a_direct_route_pins_its_server() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        wire = await server.connect()
        assert (await wire.ask("POST", "/v1/chat/completions--b", CHAT)).status == 200
        missing = await wire.ask("POST", "/api/chat--zzz", CHAT)
        assert (missing.status, missing["x-fleet-error"]) == (404, "SERVER_NOT_FOUND")
    (call,) = system.calls
    assert (call.pinned, call.target, call.dialect.name) == ("b", "/v1/chat/completions", "openai")


async def test_what_cannot_be_read_goes_on_for_a_server_to_refuse() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        assert (await (await server.connect()).ask("POST", "/api/chat", b"{nope")).status == 200
    assert (system.calls[0].model, system.calls[0].body) == ("", b"{nope")


async def test_server_sent_events_are_made_only_for_clients_that_ask_for_them() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.ask("POST", "/api/chat", CHAT, "Accept: text/event-stream")
        await wire.ask("POST", "/api/chat", CHAT, "Accept: */*")
        await wire.ask("POST", "/v1/chat/completions", CHAT, "Accept: text/event-stream")
    assert [call.sse for call in system.calls] == [True, False, False]


ACCEPTED = [
    (["Accept: text/event-stream, text/plain"], True),
    (["Accept: text/plain", "Accept: Text/Event-Stream;q=0.1"], True),
    (["Accept: application/json, text/event-stream"], False),
    (["Accept: application/json", "Accept: Text/Event-Stream;q=0.1"], False),
    (["Accept: text/event-stream, */*;q=0.1"], False),
    (["Accept: text/event-stream, application/*"], False),
    (["Accept: text/event-stream, Application/JSON; charset=utf-8"], False),
    (["Accept: text/event-stream, application/json;q=0, */*;q=0.0"], True),
    (["Accept: text/event-stream;q=0"], False),
    (["Accept: text/event-stream; Q=0.00, */*"], False),
    (["Accept: application/x-ndjson, text/event-stream"], False),
    (["Accept: application/x-ndjson;q=0, text/event-stream"], True),
    (["Accept: text/event-streams"], False),
    (["Accept: ,;,"], False),
]


@pytest.mark.parametrize(("fields", "events"), ACCEPTED)
async def test_server_sent_events_may_be_one_of_several_accepted_types(fields: list[str], events: bool) -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        await (await server.connect()).ask("POST", "/api/chat", CHAT, *fields)
    assert [call.sse for call in system.calls] == [events]


async def test_a_cloud_model_is_refused_in_plain_words_on_every_route() -> None:
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        for path in ("/api/chat", "/v1/chat/completions"):
            answer = await wire.ask("POST", path, b'{"model":"x:cloud","messages":[{}]}')
            assert answer.status == 403
            assert json.loads(answer.body) == {"error": "ollama cloud is disabled: remote model is unavailable"}


async def test_unloading_reaches_every_holder_and_gives_one_answer() -> None:
    system = FakeSystem(servers=("a", "b", "c"))
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/generate", b'{"model":"m","keep_alive":0}')
        assert answer.body == b"hi"
    assert [name for name, _ in system.relayed] == ["a"]
    told = [("unload", "m", False)]
    assert [client.told for client in system.clients.values()] == [[], told, told]
    assert sorted(system.probed) == ["a", "b", "c"]


RAISED: dict[str, tuple[FleetError, int]] = {
    "not found": (ModelNotFound("model 'm' not found"), 404),
    "queue full": (QueueFull("full", retry_after=0.2), 503),
    "backend": (BackendError("broke", Phase.HEADERS), 502),
}


def refusing(error: Exception) -> Any:
    async def refuse(call: Call, down: Downstream) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return refuse


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("agent", ["ollama-python/0.6.3 (x)", "curl/8"])
async def test_a_native_error_is_a_string_for_ollamas_clients_and_an_object_for_others(name: str, agent: str) -> None:
    error, status = RAISED[name]
    system = FakeSystem()
    system.answering = refusing(error)
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/chat", CHAT, f"User-Agent: {agent}")
    assert (answer.status, answer["x-fleet-error"]) == (status, error.reason)
    shown = json.loads(answer.body)["error"]
    if agent.startswith("ollama"):
        assert shown == error.message
    else:
        assert (shown["code"], shown["message"]) == (error.code, error.message)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ((), str),
        (("User-Agent: okhttp/4.12.0",), str),
        (("X-Fleet-Errors: structured",), dict),
        (("User-Agent: ollama-python/0.6.3", "x-fleet-errors: STRUCTURED"), dict),
        (("User-Agent: curl/8", "X-Fleet-Errors: ollama"), str),
    ],
)
async def test_who_asks_for_a_shape_of_native_errors_gets_it(fields: tuple[str, ...], kind: type) -> None:
    system = FakeSystem()
    system.answering = refusing(NoServer("none"))
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/chat", CHAT, *fields)
    assert isinstance(json.loads(answer.body)["error"], kind)


@pytest.mark.parametrize(("mode", "kind"), [("ollama", str), ("structured", dict)])
async def test_the_configuration_can_fix_the_shape_of_native_errors(mode: str, kind: type) -> None:
    system = FakeSystem(compat={"native_errors": mode})
    system.answering = refusing(NoServer("none"))
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/chat", CHAT)
    assert isinstance(json.loads(answer.body)["error"], kind)


async def test_errors_of_the_other_dialects() -> None:
    system = FakeSystem()
    system.answering = refusing(QueueFull("full", retry_after=0.2))
    async with fleet(system) as server:
        wire = await server.connect()
        openai = await wire.ask("POST", "/v1/chat/completions", CHAT)
        anthropic = await wire.ask("POST", "/v1/messages", CHAT)
    assert (openai.status, openai["retry-after"]) == (503, "1")
    assert json.loads(openai.body)["error"]["message"] == "full"
    assert json.loads(anthropic.body)["type"] == "error"


async def test_a_bug_is_a_500_with_the_request_id_and_nothing_else(expected_errors: list[str]) -> None:
    expected_errors.append("unexpected error request=r1")
    system = FakeSystem()
    system.answering = refusing(ZeroDivisionError("secret"))
    async with fleet(system) as server:
        wire = await server.connect()
        answer = await wire.ask("POST", "/api/chat", CHAT, "X-Request-Id: r1", "User-Agent: x")
    assert answer.status == 500
    assert answer["x-request-id"] == "r1"
    assert json.loads(answer.body) == {"error": "internal error"}
    assert b"secret" not in answer.body


async def test_a_response_that_breaks_after_its_start_is_visibly_cut() -> None:
    async def breaking(call: Call, down: Downstream) -> None:
        await down.start(200, [])
        await down.write(b"half")
        raise NoServer("gone")

    system = FakeSystem()
    system.answering = breaking
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/chat", length=2) + b"{}")
        with trio.fail_after(20):
            got = b""
            while piece := await wire.stream.receive_some():
                got += piece
    assert got.endswith(b"half\r\n")


async def test_an_aborted_or_short_response_is_visibly_cut() -> None:
    async def aborting(call: Call, down: Downstream) -> None:
        await down.start(200, [(b"content-length", b"10")])
        await down.write(b"half")
        if call.endpoint == "/api/chat":
            down.cut()
        else:
            await down.finish()

    system = FakeSystem()
    system.answering = aborting
    async with fleet(system) as server:
        for path in ("/api/chat", "/api/show"):
            wire = await server.connect()
            await wire.send(head("POST", path, length=2) + b"{}")
            assert await wire.closed()


@pytest.mark.parametrize("moment", ["before the head", "in the body"])
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_client_that_leaves_cancels_its_exchange_at_once(moment: str, how: str) -> None:
    begun = trio.Event()

    async def endless(call: Call, down: Downstream) -> None:
        if moment == "in the body":
            await down.start(200, [])
            await down.write(b"x")
        begun.set()
        await trio.sleep_forever()

    system = FakeSystem()
    system.answering = endless
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/chat", length=len(CHAT)) + CHAT)
        await begun.wait()
        assert system.open == 1
        if how == "reset":
            wire.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.stream.socket.close()
        with trio.fail_after(20):
            await system.ended.wait()
    assert system.open == 0


async def test_a_client_that_does_not_read_can_still_be_cancelled() -> None:
    began, scope = trio.Event(), trio.CancelScope()

    async def flooding(call: Call, down: Downstream) -> None:
        with scope:
            await down.start(200, [])
            while True:
                began.set()
                await down.write(bytes(65536))

    system = FakeSystem()
    system.answering = flooding
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/chat", length=len(CHAT)) + CHAT)
        await began.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        scope.cancel()
        with trio.fail_after(20):
            await system.ended.wait()


async def test_the_connection_goes_on_after_a_response() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        wire = await server.connect()
        for _ in range(3):
            answer = await wire.ask("POST", "/api/chat", CHAT)
            assert "connection" not in answer
    assert len(system.calls) == 3


async def test_http_1_0_gets_the_whole_stream_unframed() -> None:
    async def stream(call: Call, down: Downstream) -> None:
        await down.start(200, [(b"content-type", b"application/x-ndjson")])
        await down.write(b"{}\n")
        await down.finish()

    system = FakeSystem()
    system.answering = stream
    async with fleet(system) as server:
        wire = await server.connect()
        answer = await wire.ask("POST", "/api/chat", CHAT, version="1.0")
        assert (answer.body, "transfer-encoding" in answer) == (b"{}\n", False)
        assert await wire.closed()


async def test_draining_closes_connections_politely() -> None:
    system = FakeSystem()
    system.draining = True
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/chat", CHAT)
        assert answer["connection"] == "close"
