"""Models come and go on many servers, and the client sees one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.scheduling.server_state import Admin, Health
from tests.kit.clients.lanes import both_lanes
from tests.web.edge.raw import Answer, head
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

B = ServerId("b")
LAYER = "sha256:" + "1" * 64


EVERYWHERE = [
    ("POST", "/api/copy", b'{"source":"m","destination":"n"}'),
    ("DELETE", "/api/delete", b'{"model":"m"}'),
]
Reply = tuple[int, bytes]


def layer(completed: int, total: int = 100) -> dict[str, object]:
    return {"status": "pulling 111", "digest": LAYER, "total": total, "completed": completed}


WHOLE: list[dict[str, object]] = [
    {"status": "pulling manifest"},
    layer(50),
    layer(100),
    {"status": "writing manifest"},
    {"status": "success"},
]


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


async def test_a_pull_goes_to_every_holder_and_succeeds_once() -> None:
    system = FakeSystem()
    for client in system.clients.values():
        client.records = WHOLE
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/pull", b'{"model":"m"}')
    records = lines(answer)
    assert (answer["content-type"], records[0]) == ("application/x-ndjson", {"status": "pulling manifest"})
    assert [record for record in records if record == {"status": "success"}] == records[-1:]
    assert [record["completed"] for record in records if "completed" in record] == [50, 100]
    assert sorted(system.probed) == ["a", "b"]


async def test_a_merged_pull_forgot_what_else_the_client_said() -> None:
    system = FakeSystem()
    asked = b'{"model":"m","insecure":true,"Stream":false,"username":"u"}'
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.ask("POST", "/api/pull", asked)
        await wire.ask("POST", "/api/pull", b'{"name":"m"} rubbish')
    for client in system.clients.values():
        assert client.pulled == [{"model": "m", "insecure": True, "username": "u"}, {"model": "m"}]


async def test_a_pull_without_a_stream_gives_one_object() -> None:
    system = FakeSystem()
    for client in system.clients.values():
        client.records = WHOLE
    async with fleet(system) as server:
        wire = await server.connect()
        good = await wire.ask("POST", "/api/pull", b'{"model":"m","stream":false}')
        for client in system.clients.values():
            client.records = [{"error": "no such thing"}]
        bad = await wire.ask("POST", "/api/pull", b'{"model":"m","stream":false}')
    assert (good.status, good.body, good["content-type"]) == (200, b'{"status":"success"}', "application/json")
    assert (bad.status, bad.body) == (500, b'{"error":"no such thing"}')


async def test_a_registrys_refusal_arrives_inside_the_stream_word_for_word() -> None:
    system = FakeSystem()
    for client in system.clients.values():
        client.records = [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/pull", b'{"model":"m"}')
    assert answer.status == 200
    assert lines(answer) == [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]


async def test_one_server_that_fails_does_not_fail_the_pull() -> None:
    system = FakeSystem()
    system.clients["a"].records = WHOLE
    system.clients["b"].records = [{"status": "pulling manifest"}, {"error": "disk full"}]
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/pull", b'{"model":"m"}')
    assert {"status": "b failed: disk full"} in lines(answer)
    assert lines(answer)[-1] == {"status": "success"}


async def test_a_client_that_leaves_cancels_the_pull_everywhere() -> None:
    system = FakeSystem()
    for client in system.clients.values():
        client.records, client.hang = [{"status": "pulling manifest"}], True
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/pull", length=13) + b'{"model":"m"}')
        with trio.fail_after(20):
            while b"manifest" not in await wire.stream.receive_some():
                pass
        wire.stream.socket.close()
        with trio.fail_after(20):
            while any(client.pulls for client in system.clients.values()):
                await trio.lowlevel.checkpoint()


async def test_a_model_that_nobody_has_is_pulled_where_there_is_room() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        assert (await (await server.connect()).ask("POST", "/api/pull", b'{"model":"new"}')).body == b"hi"
    assert ([name for name, _ in system.relayed], system.probed) == (["a"], ["a"])


TRANSFERS = [
    # method, path, body, to whom
    ("POST", "/api/push", b'{"model":"m"}', "a"),
    ("POST", "/api/create", b'{"model":"x","files":{"a":"sha256:1"}}', "a"),
    ("POST", "/api/create", b'{"model":"x","from":"only-b"}', "b"),
    ("POST", "/api/pull", b"{bad", "a"),
    ("POST", "/api/copy", b"{bad", "a"),
    ("DELETE", "/api/delete", b'{"model":"a b"}', "a"),
    ("HEAD", "/api/blobs/sha256:1", b"", "a"),
    ("GET", "/api/experimental/model-recommendations", b"", "a"),
]


@pytest.mark.parametrize(("method", "path", "body", "server"), TRANSFERS)
async def test_transfer(method: str, path: str, body: bytes, server: str) -> None:
    system = FakeSystem()
    system.servers[B].state.models["only-b:latest"] = {"name": "only-b"}
    async with fleet(system) as here:
        assert (await (await here.connect()).ask(method, path, body)).status == 200
    ((name, call),) = system.relayed
    assert (name, call.method, call.target, call.body) == (server, method, path, body)


async def test_a_model_whose_only_holder_is_down_is_not_made_from_the_registry_instead() -> None:
    system = FakeSystem()
    system.servers[B].state.models["only-b:latest"] = {"name": "only-b"}
    system.servers[B].state.health = Health.UNHEALTHY
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/api/create", b'{"model":"x","from":"only-b"}')
    assert (answer.status, answer["retry-after"]) == (503, "5")


async def test_copy_and_delete_reach_every_holder() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        wire = await server.connect()
        copied = await wire.ask("POST", "/api/copy", b'{"source":"m","destination":"n"}')
        deleted = await wire.ask("DELETE", "/api/delete", b'{"name":"m"}')
    assert [(answer.status, answer.body) for answer in (copied, deleted)] == [(200, b""), (200, b"")]
    assert "content-type" not in copied
    assert [client.told for client in system.clients.values()] == [[("copy", "m", "n"), ("delete", "m")]] * 2


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("POST", "/api/copy", b'{"source":"none","destination":"n"}', 'model "none" not found'),
        ("DELETE", "/api/delete", b'{"model":"none"}', "model 'none' not found"),
    ],
)
async def test_a_model_that_nobody_has_is_404(method: str, path: str, body: bytes, text: str) -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask(method, path, body, "User-Agent: ollama/1")
    assert (answer.status, json.loads(answer.body)["error"]) == (404, text)


async def test_half_done_is_told_with_names() -> None:
    system = FakeSystem()
    system.clients["b"].reply = (500, b'{"error":"x"}')
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("DELETE", "/api/delete", b'{"model":"m"}')
    assert (answer.status, json.loads(answer.body)["error"]) == (500, "done on 1 of 2 servers; failed on b (500)")


@pytest.mark.parametrize(("method", "path", "body"), EVERYWHERE)
async def test_a_drained_holder_was_skipped(method: str, path: str, body: bytes) -> None:
    system = FakeSystem()
    system.servers[B].state.admin = Admin.DRAINED
    async with fleet(system) as server:
        assert (await (await server.connect()).ask(method, path, body)).status == 200
    assert [len(client.told) for client in system.clients.values()] == [1, 1]


async def test_an_unload_skipped_a_drained_holder() -> None:
    system = FakeSystem()
    system.servers[B].state.admin = Admin.DRAINED
    async with fleet(system) as server:
        body = b'{"model":"m","keep_alive":0}'
        assert (await (await server.connect()).ask("POST", "/api/generate", body)).status == 200
    assert ([name for name, _ in system.relayed], system.clients["b"].told) == (["a"], [("unload", "m", False)])


@pytest.mark.parametrize(("method", "path", "body"), EVERYWHERE)
async def test_a_holder_that_could_not_be_reached_was_not_mentioned(method: str, path: str, body: bytes) -> None:
    system = FakeSystem()
    system.servers[B].state.health = Health.UNHEALTHY
    async with fleet(system) as server:
        answer = await (await server.connect()).ask(method, path, body)
    text = "done on 1 of 2 servers; failed on b (unreachable)"
    assert (answer.status, json.loads(answer.body)["error"]) == (500, text)


MISSING = b"""{"error":"model 'm' not found"}"""
MISSING_OTHERWISE = b'{"error":"model \\"m\\" not found"}'
NO_ROUTE = b"404 page not found"
REPLIED = [
    # what a and b reply, what the client gets
    ((200, b""), (404, MISSING), (200, b"")),
    ((404, MISSING), (404, MISSING), (404, MISSING)),
    ((404, MISSING), (404, MISSING_OTHERWISE), (404, MISSING)),
    ((200, b""), (404, NO_ROUTE), (500, b'{"error":"done on 1 of 2 servers; failed on b (404)"}')),
]


@pytest.mark.parametrize(("method", "path", "body"), EVERYWHERE)
@pytest.mark.parametrize(("one", "other", "expected"), REPLIED)
async def test_a_server_without_the_model_counted_as_a_failure(
    method: str, path: str, body: bytes, one: Reply, other: Reply, expected: Reply
) -> None:
    system = FakeSystem()
    system.clients["a"].reply, system.clients["b"].reply = one, other
    async with fleet(system) as server:
        answer = await (await server.connect()).ask(method, path, body)
    assert (answer.status, answer.body) == expected


async def test_a_refusal_that_all_servers_agree_on_is_passed_on() -> None:
    system = FakeSystem()
    for client in system.clients.values():
        client.reply = (400, b'{"error":"no"}')
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("DELETE", "/api/delete", b'{"model":"m"}')
    assert (answer.status, answer.body) == (400, b'{"error":"no"}')
