"""What once went wrong with the room the edge has: its way to the app, descriptors, sockets, heads."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

import web.edge.acceptor
import web.process.private_listener
from fleet.config import Config
from tests.kit.clients.edge import browser, in_front_of, whole_answer
from tests.kit.clients.lanes import QUART, UNIX
from tests.web.edge.raw import Served, running
from tests.web.fake_system import FakeSystem, fleet
from web.app import create_app
from web.asgi.quart_connection import TERMS_KEY
from web.cli import main
from web.edge.acceptor import Edge, _accept_batch, serve_edge
from web.edge.request_head import BadHead, Heads
from web.http.ports import Face
from web.process.bind import bind
from web.process.private_listener import Inner, private_socket
from web.security.request_gate import RequestGate
from web.serve import bind_all

DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'


def whole(head: bytes, body: bytes) -> Sequence[bytes]:
    return [whole_answer(DONE)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = (line for line in caplog.records if line.name == "web.edge.app_proxy")
    return [line.getMessage() for line in lines if line.levelno == logging.WARNING]


# ---- the way to the app


def cleaned(path: str) -> None:
    shutil.rmtree(os.path.dirname(path))


def dead(path: str) -> None:
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


@pytest.mark.parametrize("lose", [cleaned, dead])
async def test_a_private_socket_that_is_lost_does_not_cost_every_cold_request(
    lose: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fleet.admin")
    seen: list[int] = []
    async with in_front_of(whole) as (here, _):
        lose(here.lanes[QUART].removeprefix(UNIX))

        async def one() -> None:
            client = await browser(here.url)
            async with client.stream:
                seen.append((await client.ask("GET", "/api/version")).status)
                seen.append((await client.ask("POST", "/api/orchestrator/queue/resume", {})).status)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(one)
    assert seen == [200] * 80
    assert {vars(line)["client"] for line in caplog.records if line.name == "fleet.admin"} == {"127.0.0.1"}
    assert [line.partition(" (")[0] for line in warnings(caplog)] == ["the private socket is lost"]


@asynccontextmanager
async def edge_without_app(answer: bytes | None, **config: Any) -> AsyncIterator[Served]:
    """An edge whose app says only this, or, with None, is not there at all."""
    system = FakeSystem(**config)
    app = create_app(system.handle)
    with private_socket(time.time()) as inner:
        cleaned(inner.path)
        edge = Edge(system.handle, RequestGate(system.handle), inner, app.config[TERMS_KEY], None)
        bound = bind("127.0.0.1", 0, "test")
        async with running(partial(serve_edge, [bound], edge), bound.url) as server, trio.open_nursery() as nursery:
            if answer is None:
                inner.arriving.close()
            else:
                nursery.start_soon(_answering, inner, answer)
            yield server
            nursery.cancel_scope.cancel()


async def _answering(inner: Inner, answer: bytes) -> None:
    async for sock in inner.arriving:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
            await stream.receive_some()
            if answer:
                await stream.send_all(answer)


@pytest.mark.parametrize("answer", [None, b""])
async def test_an_app_that_is_not_there_is_a_503_that_names_nothing_internal(
    answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with edge_without_app(answer) as server:
        wire = await server.connect()
        for path in ("/api/version", "/v1/models", "/api/orchestrator/queue"):
            refused = await wire.ask("GET", path)
            assert (refused.status, refused["x-fleet-error"], refused["retry-after"]) == (503, "APP_UNREACHABLE", "1")
            assert b"own application" in refused.body
            assert b"internal" not in refused.body
            assert "x-request-id" in refused
    assert sum("gives no answer" in line for line in warnings(caplog)) == 1


async def test_a_204_of_the_app_has_no_length() -> None:
    async with edge_without_app(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-Mine: 1\r\n\r\n") as server:
        answer = await (await server.connect()).ask("OPTIONS", "/api/version")
    assert (answer.status, answer["x-mine"]) == (204, "1")
    assert "content-length" not in answer
    assert "transfer-encoding" not in answer


@pytest.mark.parametrize("folder", ["long" * 30, "missing"])
def test_a_temporary_directory_that_cannot_hold_a_socket_is_not_used(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if folder != "missing":
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / folder))
    with private_socket(time.time()) as inner:
        assert inner.path.startswith("/tmp/fleet-")
        assert os.stat(os.path.dirname(inner.path)).st_mode & 0o777 == 0o700
    assert not os.path.exists(os.path.dirname(inner.path))
    assert [*tmp_path.rglob("fleet-*")] == []


@pytest.mark.parametrize("demo", [False, True])
def test_no_place_for_the_private_socket_is_one_sentence_and_exit_code_2(
    demo: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web.process.private_listener, "_PLACES", (str(tmp_path / "missing"),))
    config = Config.model_validate(
        {"server": {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}}
    )
    assert main._run(config, demo=demo) == main.BAD_CONFIG
    (said,) = capsys.readouterr().err.splitlines()
    assert "TMPDIR" in said


# ---- sockets


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
@pytest.mark.parametrize(("write", "milliseconds"), [(5, 60_000), (60, 90_000), (600, 630_000)])
def test_the_system_does_not_reset_a_client_before_its_write_timeout(write: float, milliseconds: int) -> None:
    server = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}
    every = bind_all(Config.model_validate({"server": server, "timeouts": {"write": write}}))
    try:
        got = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for one in every for sock in one.sockets]
    finally:
        for one in every:
            one.close()
    assert set(got) == {milliseconds}


def _edge(most: float) -> tuple[Edge, list[socket.socket]]:
    """An edge that entered nobody yet, and where the other ends of its clients are kept."""
    system = FakeSystem().handle
    return Edge(system, RequestGate(system), cast(Inner, None), cast(Any, None), None, most), []


async def test_a_batch_of_refused_clients_is_counted_before_its_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.edge.acceptor, "_TURNING_AWAY", 3)
    edge, others = _edge(most=0)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            others.append(theirs)
            edge.enter(ours, "", nursery)
        for each in others:
            each.setblocking(False)
        assert [_read(each) for each in others] == [None] * 3 + [b""] * 7
        await trio.testing.wait_all_tasks_blocked()
        assert all((_read(each) or b"").startswith(b"HTTP/1.1 503 ") for each in others[:3])
        for each in others:
            each.close()
    assert edge._turned_away == 0


def _read(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(4096)
    except BlockingIOError:
        return None


class _Listening:
    """A listener whose every accept does the next of these."""

    def __init__(self, *steps: socket.socket | OSError) -> None:
        self.steps = list(steps)

    def accept(self) -> tuple[socket.socket, object]:
        if not self.steps:
            raise BlockingIOError
        step = self.steps.pop(0)
        if isinstance(step, OSError):
            raise step
        return step, ""


class _Unfit(socket.socket):
    """A connection that was reset before it could be set up (macOS and the BSDs say EINVAL then)."""

    def setsockopt(self, *args: Any) -> None:
        raise OSError(22, "Invalid argument")


class _Guests:
    """As much of an edge as accepting needs."""

    def __init__(self) -> None:
        self.entered: list[socket.socket] = []

    def enter(self, sock: socket.socket, address: object, nursery: object, face: Face) -> None:
        self.entered.append(sock)


def test_a_client_that_is_gone_already_is_closed_and_does_not_end_the_batch() -> None:
    guests, unfit, good = _Guests(), _Unfit(), socket.socket()
    aborted = ConnectionAbortedError(103, "aborted")
    exhausted = OSError(24, "Too many open files")
    listener = cast(socket.socket, _Listening(unfit, aborted, good, exhausted))
    with good:
        assert _accept_batch(cast(Edge, guests), listener, Face.PROXY, cast(trio.Nursery, None)) is exhausted
        assert unfit.fileno() == -1
        assert guests.entered == [good]
        assert _accept_batch(cast(Edge, guests), listener, Face.PROXY, cast(trio.Nursery, None)) is None


async def test_clients_that_the_process_has_no_descriptors_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    system = FakeSystem()
    making = partial(Edge, most=1)
    monkeypatch.setattr("tests.web.fake_system.Edge", making)
    async with fleet(system) as server:
        assert (await (await server.connect()).ask("GET", "/")).status == 200
        assert (await (await server.connect()).answer()).status == 503


# ---- heads


def test_a_million_fields_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: bcdefghij\r\n" * 1_100_000 + b"\r\n"
    monkeypatch.setattr("web.edge.request_head.parse", lambda *args: pytest.fail("it was read"))
    with pytest.raises(BadHead) as refused:
        Heads(100).read(data)
    assert refused.value.status == 431


@pytest.mark.parametrize("length", [None, 5])
def test_as_many_big_fields_as_are_allowed_are_taken(length: int | None) -> None:
    most = [b"Host: x", *(b"x-%d: %b" % (number, b"y" * 100) for number in range(99))]
    stated = [] if length is None else [b"Content-Length: 5"]
    data = b"\r\n".join([b"POST / HTTP/1.1", *most, *stated, b"", b""])
    head, found = Heads(100).read(data)
    assert (len(head.headers), found) == (100, length)
    with pytest.raises(BadHead):
        Heads(99).read(data)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    "fields",
    [
        (b"close", b"keep-alive"),
        (b"keep-alive", b"close"),
        (b"Close, Keep-Alive",),
        (b"keep-alive,close",),
        (b"keep-alive", b"x-mine", b"close", b"Keep-Alive"),
    ],
)
def test_close_wins_over_keep_alive_wherever_it_stands(version: bytes, fields: tuple[bytes, ...]) -> None:
    lines = [b"GET / HTTP/" + version, b"Host: x", *(b"Connection: " + value for value in fields), b"", b""]
    head, _ = Heads(100).read(b"\r\n".join(lines))
    assert not head.keep_alive
