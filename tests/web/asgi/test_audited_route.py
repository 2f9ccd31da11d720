"""Who changed what: one log line per management call and per change by the operator, and no body in it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.protocol.call import Call, Downstream
from fleet.scheduling.server_state import Health
from tests.kit.fleets.served import served
from tests.web.edge.raw import head
from tests.web.fake_system import FakeSystem, fleet
from web.process.log_format import TextFormatter

ADMIN = "/api/orchestrator"
ME = "127.0.0.1"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Both loggers, listened to."""
    for name in ("fleet.management", "fleet.admin"):
        caplog.set_level(logging.INFO, logger=name)
    return caplog


def told(lines: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(line) for line in lines.records if line.name in ("fleet.management", "fleet.admin")]


async def failing_stream(call: Call, down: Downstream) -> None:
    await down.start(200, [(b"content-type", b"application/x-ndjson")])
    await down.write(b'{"status":"pulling manifest"}\n{"error":"no such thing"}\n')
    await down.finish()


CALLS = [
    # method, path, body; logger, message, fields
    ("POST", "/api/pull", b'{"model":"new"}', "management", "pull done", {"model": "new", "server": "a"}),
    ("POST", "/api/push", b'{"model":"m"}', "management", "push done", {"model": "m", "server": "a"}),
    ("POST", "/api/create", b'{"model":"x","from":"m"}', "management", "create done", {"model": "x", "server": "a"}),
    ("POST", "/api/copy", b'{"source":"m","destination":"n"}', "management", "copy done", {"destination": "n"}),
    ("DELETE", "/api/delete", b'{"model":"m"}', "management", "delete done", {"model": "m", "server": "a,b"}),
    ("DELETE", "/api/delete", b'{"model":"none"}', "management", "delete failed",
     {"model": "none", "status": 404, "reason": "MODEL_NOT_FOUND"}),
    ("POST", "/api/blobs/sha256:1", b"a blob", "management", "blob done", {"digest": "sha256:1", "method": "POST"}),
    ("POST", f"{ADMIN}/servers/add", b'{"id":"c","url":"http://c"}', "admin", "add server done", {"server": "c"}),
    ("POST", f"{ADMIN}/servers/add", b"{", "admin", "add server failed", {"status": 400}),
    ("DELETE", f"{ADMIN}/servers/a", b"", "admin", "remove server done", {"server": "a"}),
    ("DELETE", f"{ADMIN}/servers/z", b"", "admin", "remove server failed", {"server": "z", "status": 404}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "logger", "message", "fields"), CALLS)
async def test_one_line(
    method: str,
    path: str,
    body: bytes,
    logger: str,
    message: str,
    fields: dict[str, object],
    lines: pytest.LogCaptureFixture,
) -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask(method, path, body, "X-Request-Id: r1")
    (line,) = told(lines)
    expected = {"name": f"fleet.{logger}", "levelname": "INFO", "client": ME, "request_id": "r1"}
    assert line.items() >= ({"status": answer.status} | expected | fields).items()
    assert line["msg"] % line["args"] == message


async def test_orders_to_the_queue_leave_a_line_each(lines: pytest.LogCaptureFixture) -> None:
    async with served("a") as product, product.client() as client:
        for order in ("pause", "resume"):
            assert (await client.post(f"{ADMIN}/queue/{order}")).status_code == 200
    assert [(line["args"], line["by"]) for line in told(lines)] == [
        (("pause queue", "done"), "anonymous"),
        (("resume queue", "done"), "anonymous"),
    ]


async def test_an_error_inside_a_stream_looked_like_success(lines: pytest.LogCaptureFixture) -> None:
    system = FakeSystem()
    system.answering = failing_stream
    async with fleet(system) as server:
        await (await server.connect()).ask("POST", "/api/pull", b'{"model":"new"}')
    assert [(line["args"], line["status"]) for line in told(lines)] == [(("pull", "failed"), 200)]


async def test_a_client_that_leaves_is_told_as_well(lines: pytest.LogCaptureFixture) -> None:
    system, began = FakeSystem(), trio.Event()

    async def endless(call: Call, down: Downstream) -> None:
        began.set()
        await trio.sleep_forever()

    system.answering = endless
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/push", length=13) + b'{"model":"m"}')
        with trio.fail_after(20):
            await began.wait()
            wire.stream.socket.close()
            while not told(lines):
                await trio.sleep(0.005)
    assert [line["args"] for line in told(lines)] == [("push", "cancelled")]


async def test_nothing_of_the_body_is_logged_but_cut_names(lines: pytest.LogCaptureFixture) -> None:
    system = FakeSystem()
    system.servers[ServerId("b")].state.health = Health.UNHEALTHY
    body = b'{"model":"' + b"x" * 999 + b'\\n","template":"a secret","from":"m"}'
    async with fleet(system) as server:
        await (await server.connect()).ask("POST", "/api/create", body)
    (line,) = [line for line in lines.records if line.name == "fleet.management"]
    text = TextFormatter().format(line)
    assert "secret" not in text
    assert "x" * 201 not in text


async def test_a_refusal_at_the_door_leaves_a_line_without_the_body(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="web.http.errors"):
        async with fleet(FakeSystem(security={"api_keys": ["a-secret-key"]})) as server:
            wire = await server.connect()
            await wire.send(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\nsecret prompt!")
            assert (await wire.answer()).status == 403
    (line,) = [record for record in caplog.records if record.message == "request refused"]
    assert (line.__dict__["status"], line.__dict__["reason"]) == (403, "FORBIDDEN")
    assert "secret" not in str(line.__dict__)
