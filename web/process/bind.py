"""Listening sockets, with an error that says what to do when the port is taken."""

from __future__ import annotations

import errno
import os
import socket
import sys
from dataclasses import dataclass
from typing import Final

import trio

_BACKLOG: Final = 4096
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
DEAD_PEER: Final = 60.0
"""Seconds after which a peer that acknowledges nothing counts as gone."""
_TAKEN: Final[dict[int | None, str]] = {
    errno.EADDRINUSE: "another program is listening there",
    errno.EACCES: "the operating system does not allow it",
}


class PortTaken(Exception):
    """Another program listens there already. The message is one sentence for the operator."""


class HostUnusable(Exception):
    """This machine cannot listen under `server.host`. The message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Sockets that listen on one address, and the setting that says so."""

    sockets: tuple[socket.socket, ...]
    host: str
    port: int
    setting: str
    scheme: str = "http"

    @property
    def url(self) -> str:
        """How a client would write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def listeners(self) -> list[trio.SocketListener]:
        """The sockets as Trio wants them; they belong to Trio from here on."""
        return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in self.sockets]

    def give_up_after(self, seconds: float) -> None:
        """Another `dead_peer` (see `bind`) for connections that are accepted from now on."""
        for sock in self.sockets:
            _give_up_after(sock, seconds)

    def close(self) -> None:
        """Give the address back without having served it."""
        for sock in self.sockets:
            sock.close()


def bind(host: str, port: int, setting: str, scheme: str = "http", *, dead_peer: float = DEAD_PEER) -> Bound:
    """Listen on every address that `host` means; port 0 picks a free one.

    `dead_peer`: seconds in which a client acknowledges nothing, or takes nothing, before its connection is reset.
    Raises PortTaken or HostUnusable with one sentence naming the address and the setting; OSError for anything else.
    """
    sockets: list[socket.socket] = []
    try:
        for family, where in _addresses(host, port):
            sockets.append(_listen(family, where, dead_peer))
            if port == 0:
                break  # one port number for all would need luck
    except (OSError, UnicodeError) as error:
        for sock in sockets:
            sock.close()
        raise _explained(error, host, port, setting) from error
    return Bound(tuple(sockets), host, sockets[0].getsockname()[1], setting, scheme)


def _explained(error: Exception, host: str, port: int, setting: str) -> Exception:
    # UnicodeError is what a name with an overlong label ends in, on its way to the resolver
    if isinstance(error, socket.gaierror | UnicodeError):
        return HostUnusable(f"cannot listen on {host} because no such host is known; change server.host")
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRNOTAVAIL:
        return HostUnusable(f"cannot listen on {host}: this machine has no such address; change server.host")
    if number not in _TAKEN:
        return error
    return PortTaken(f"cannot listen on {host}:{port} because {_TAKEN[number]}; choose another with {setting}")


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    wanted = {(family, (str(where[0]), port)) for family, _, _, _, where in found}
    return sorted(wanted, key=lambda one: one[0] != socket.AF_INET)


def _listen(family: socket.AddressFamily, where: tuple[str, int], dead_peer: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix" and sys.platform != "cygwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _give_up_after(sock, dead_peer)
        sock.bind(where)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _give_up_after(sock: socket.socket, seconds: float) -> None:
    """Inherited by accepted sockets: a peer that vanished is noticed although nothing is being read from it."""
    if _USER_TIMEOUT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))
