"""What `fleet status` says of the ports: a fleet, nobody, or somebody else."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trustme

from fleet.config import Config
from fleet.observability.health_summary.summary import Level
from tests.kit.fleets.served import served
from tests.kit.fleets.silent import silent_ports
from web.cli.status import report_status

TLS = {"certificate": "c.pem", "key": "k.pem"}
Handler = Callable[[trio.SocketStream], Awaitable[None]]


def configured(
    proxy: int,
    orchestrator: int,
    host: str = "127.0.0.1",
    tls: dict[str, str] | None = None,
    dashboard: int = 0,
    metrics: int = 0,
) -> Config:
    server = {
        "host": host,
        "proxy_port": proxy,
        "orchestrator_port": orchestrator,
        "dashboard_port": dashboard,
        "metrics_port": metrics,
        "tls": tls or {},
    }
    return Config.model_validate({"server": server})


async def status(config: Config) -> tuple[bool, list[str]]:
    said: list[str] = []
    good = await trio.to_thread.run_sync(report_status, config, said.append)
    return good, said


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


_HELD = ExitStack()


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    yield
    _HELD.close()


def free_port() -> int:
    """Nobody listens there, and nobody else gets it while the test runs."""
    (port,) = _HELD.enter_context(silent_ports(1))
    return port


@asynccontextmanager
async def stranger(handler: Handler) -> AsyncIterator[int]:
    """Somebody else's server; its port."""
    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_running_fleet_is_healthy_on_both_ports() -> None:
    async with served("a") as here:
        ports = port_of(here.url), port_of(here.orchestrator_url)
        good, said = await status(configured(*ports))
    assert good
    assert [line.split() for line in said[:2]] == [
        ["proxy", f"http://127.0.0.1:{ports[0]}", "ok"],
        ["orchestrator", f"http://127.0.0.1:{ports[1]}", "ok"],
    ]


async def test_the_ports_that_answer_in_other_words_are_asked_too_and_the_verdict_comes_last() -> None:
    async with served("a") as here:
        ports = [port_of(url) for url in (here.url, here.orchestrator_url, here.dashboard_url, here.metrics_url)]
        with trio.fail_after(60):
            while here.system.monitor.verdict.level is not Level.OK:
                await trio.sleep(0.02)
                here.system.monitor.evaluate()
        good, said = await status(configured(ports[0], ports[1], dashboard=ports[2], metrics=ports[3]))
    assert good
    assert [line.split()[0] for line in said[:4]] == ["proxy", "orchestrator", "dashboard", "metrics"]
    assert [line.split()[-1] for line in said[:4]] == ["ok", "ok", "ok", "healthy"]
    assert said[4:] == [here.system.monitor.verdict.line]


async def test_a_fleet_without_healthy_servers_is_not_all_right() -> None:
    async with served() as here:
        good, said = await status(
            configured(port_of(here.url), port_of(here.orchestrator_url), metrics=port_of(here.metrics_url))
        )
    assert (good, [line.split()[-1] for line in said[:3]]) == (False, ["unhealthy", "unhealthy", "unhealthy"])


VERDICTS = [
    (b'{"level":"crit","headline":"gpu-042 is\\u001b[31m down"}', ["\u25a0 gpu-042 is[31m down"]),
    (b'{"level":"purple","headline":"x"}', []),
    (b'{"level":["ok"],"headline":"x"}', []),
    (b'"fine"', []),
    (b"null", []),
]


@pytest.mark.parametrize(("verdict", "shown"), VERDICTS)
async def test_a_verdict_is_shown_with_its_shape_and_nothing_a_terminal_would_obey(
    verdict: bytes, shown: list[str]
) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        body = b'{"services":{},"status":"degraded","verdict":%s}' % verdict
        await stream.send_all(b"HTTP/1.1 503 Not now\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await stream.aclose()

    async with stranger(speak) as port:
        good, said = await status(configured(free_port(), free_port(), metrics=port))
    assert (good, said[2].split()[-1], said[3:]) == (False, "degraded", shown)


async def test_nothing_runs() -> None:
    good, said = await status(configured(free_port(), free_port()))
    assert (good, [line.endswith("not running") for line in said]) == (False, [True, True])


ANSWERS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\nOllama is running",
    b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"status":"ok"}',
    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n[{}]",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_something_else_uses_the_port(answer: bytes) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with served("a") as here, stranger(speak) as port:
        good, said = await status(configured(port, port_of(here.orchestrator_url)))
    assert not good
    assert "is something else using the port?" in said[0]
    assert said[1].endswith("ok")


async def test_a_port_that_takes_connections_and_says_nothing_is_not_called_a_stranger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("web.cli.status.PATIENCE", 0.1)

    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with stranger(silent) as port:
        good, said = await status(configured(port, free_port()))
    assert (good, "does not answer within 0.1 s" in said[0]) == (False, True)


@pytest.mark.parametrize(
    ("piece", "words", "patience"),
    [(b'"', "does not answer within 0.2 s", 0.2), (b" " * 400_000, "is something else using the port?", 50.0)],
)
async def test_an_answer_without_end_is_left(
    piece: bytes, words: str, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.cli.status.PATIENCE", patience)

    async def drip(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await stream.send_all(piece)
                await trio.sleep(0.02)

    with trio.fail_after(60):
        async with stranger(drip) as port:
            good, said = await status(configured(port, free_port()))
    assert (good, words in said[0]) == (False, True)


def spoken_securely(handler: Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]) -> Handler:
    """The handler behind TLS, with a certificate that nobody trusts and that names another host."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("elsewhere.example").configure_cert(context)

    async def secured(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await handler(secure)
        except trio.BrokenResourceError:  # whoever asked spoke no TLS
            await trio.aclose_forcefully(stream)

    return secured


async def healthy(stream: trio.abc.Stream) -> None:
    await stream.receive_some(65536)
    body = b'{"orchestrator":{},"status":"ok"}'
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    await stream.aclose()


async def test_with_tls_the_ports_are_asked_by_https_whatever_the_certificate_says() -> None:
    async with stranger(spoken_securely(healthy)) as port:
        good, said = await status(configured(port, free_port(), tls=TLS))
    assert (good, said[0].split()[1:]) == (False, [f"https://127.0.0.1:{port}", "ok"])
    assert said[1].endswith("not running")


async def test_a_port_that_speaks_the_other_protocol_is_a_stranger() -> None:
    async with stranger(healthy) as plain, stranger(spoken_securely(healthy)) as secure:
        _, said = await status(configured(plain, free_port(), tls=TLS))
        assert "is something else using the port?" in said[0]
        _, said = await status(configured(secure, free_port()))
        assert "is something else using the port?" in said[0]


async def test_a_handshake_that_never_ends_is_not_called_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.cli.status.PATIENCE", 0.1)

    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with stranger(silent) as port:
        _, said = await status(configured(port, free_port(), tls=TLS))
    assert "does not answer within 0.1 s" in said[0]


HOSTS = [("0.0.0.0", "http://127.0.0.1"), ("::", "http://[::1]"), ("::1", "http://[::1]")]


@pytest.mark.parametrize(("host", "url"), HOSTS)
async def test_every_kind_of_host_gives_an_address_to_ask(host: str, url: str) -> None:
    _, said = await status(configured(1, 2, host))
    assert [line.split(maxsplit=2)[1:] for line in said] == [[f"{url}:{port}", "not running"] for port in (1, 2)]
