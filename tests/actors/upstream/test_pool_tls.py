"""Backends behind TLS."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trustme

from actors.upstream.pool import BackendAddress, Pool
from fleet.common.errors import BackendBroke, BackendUnreachable, ConnectTimeout
from tests.actors.upstream.transport_kit import OK, Peer, Server, answering, ask, fetch, open_sockets, post, start

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class TlsServer(Server):
    """Speaks TLS with a certificate for `localhost`."""

    def __init__(self, handler: Callable[[Peer], Awaitable[None]], authority: trustme.CA) -> None:
        super().__init__(handler)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self._context)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        secure = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        try:
            await super()._serve(secure)
        except trio.BrokenResourceError:  # the client did not like our certificate, or left without a word
            await trio.aclose_forcefully(stream)

    def secure_pool(self, context: ssl.SSLContext | None, host: str = "localhost") -> Pool:
        return Pool(BackendAddress.parse(f"https://{host}:{self.port}/base"), ssl_context=context)


async def test_requests_over_tls_reuse_their_connection(
    nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    seen: list[bytes | None] = []

    async def handler(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.send(OK)

    server = TlsServer(handler, authority)
    await server.start(nursery)
    pool = server.secure_pool(trusting)
    assert [await fetch(pool), await fetch(pool, post(b"x" * (4 << 20))), await fetch(pool)] == [b"ok"] * 3
    # The second request is sent by a task of its own; with TLS it may look unfinished when the answer is there.
    assert server.accepted <= 2
    assert seen[0] is not None
    assert seen[0].startswith(b"POST /base/api/chat HTTP/1.1\r\nhost: localhost:%d\r\n" % server.port)
    pool.close()


async def test_a_closed_tls_connection_is_not_reused(
    nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await idle.wait()
            await peer.stream.aclose()
            closed.set()
        else:
            await peer.gone()

    idle, closed = trio.Event(), trio.Event()
    server = TlsServer(handler, authority)
    await server.start(nursery)
    pool = server.secure_pool(trusting)
    await fetch(pool)
    idle.set()
    await closed.wait()
    assert await fetch(pool) == b"ok"
    assert server.accepted == 2
    pool.close()


async def test_an_untrusted_certificate(nursery: trio.Nursery, authority: trustme.CA) -> None:
    server = TlsServer(answering(OK), authority)
    await server.start(nursery)
    pool = server.secure_pool(None)
    with pytest.raises(BackendUnreachable) as caught:
        await ask(pool)
    assert caught.value.message.startswith(f"localhost:{server.port} cannot be reached: certificate not trusted, ")
    assert pool.open_count == 0


async def test_a_certificate_for_somebody_else(
    nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    server = TlsServer(answering(OK), authority)
    await server.start(nursery)
    with pytest.raises(BackendUnreachable, match="certificate not trusted"):
        await ask(server.secure_pool(trusting, "127.0.0.1"))


async def test_a_server_that_does_not_speak_tls(nursery: trio.Nursery, trusting: ssl.SSLContext) -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    server = await start(nursery, handler)
    with pytest.raises(BackendUnreachable, match="TLS handshake failed"):
        await ask(Pool(BackendAddress.parse(f"https://localhost:{server.port}"), ssl_context=trusting))


async def test_a_handshake_that_hangs_is_a_connect_timeout(nursery: trio.Nursery, trusting: ssl.SSLContext) -> None:
    async def handler(peer: Peer) -> None:
        await peer.gone()
        left.set()

    left = trio.Event()
    server = await start(nursery, handler)
    before = open_sockets()
    pool = Pool(BackendAddress.parse(f"https://localhost:{server.port}"), ssl_context=trusting)
    with pytest.raises(ConnectTimeout):
        await pool.open(post(), connect_timeout=0.05)
    await left.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert open_sockets() == before


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_reader_is_woken(
    nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext, how: str
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.gone()

    server = TlsServer(handler, authority)
    await server.start(nursery)
    pool = server.secure_pool(trusting)
    response = await ask(pool)

    async def end() -> None:
        await trio.testing.wait_all_tasks_blocked()
        (response.abort if how == "abort" else pool.close)()

    nursery.start_soon(end)
    with pytest.raises(BackendBroke):
        await response.receive()
    assert pool.open_count == 0
