"""Listening sockets, with an error that says what to do when the port is taken."""

from __future__ import annotations

import errno
import os
import socket
import sys
from dataclasses import dataclass
from typing import Final

import trio

_BACKLOG: Final = 1024
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
_DEAD_PEER_MS: Final = 60_000


class PortTaken(Exception):
    """Another program listens there already. The message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Sockets that listen on one address, and the setting that says so."""

    sockets: tuple[socket.socket, ...]
    host: str
    port: int
    setting: str

    @property
    def url(self) -> str:
        """How a client would write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def listeners(self) -> list[trio.SocketListener]:
        """The sockets as Trio wants them; they belong to Trio from here on."""
        return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in self.sockets]

    def close(self) -> None:
        """Give the address back without having served it."""
        for sock in self.sockets:
            sock.close()


def bind(host: str, port: int, setting: str) -> Bound:
    """Listen on every address that `host` means; port 0 picks a free one.

    Raises PortTaken with one sentence naming the address and the setting; OSError for anything else.
    """
    sockets: list[socket.socket] = []
    try:
        for family, where in _addresses(host, port):
            sockets.append(_listen(family, where))
            if port == 0:
                break  # one port number for all would need luck
    except OSError as error:
        for sock in sockets:
            sock.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise PortTaken(_complaint(error, host, port, setting)) from error
        raise
    return Bound(tuple(sockets), host, sockets[0].getsockname()[1], setting)


def _complaint(error: OSError, host: str, port: int, setting: str) -> str:
    why = {
        errno.EADDRINUSE: "another program is listening there",
        errno.EACCES: "the operating system does not allow it",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }[error.errno or 0]
    return f"cannot listen on {host}:{port} because {why}; choose another with {setting}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    wanted = {(family, (str(where[0]), port)) for family, _, _, _, where in found}
    return sorted(wanted, key=lambda one: one[0] != socket.AF_INET)


def _listen(family: socket.AddressFamily, where: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix" and sys.platform != "cygwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if _USER_TIMEOUT is not None:
            # inherited by accepted sockets: a peer that vanished is noticed although nothing is being read from it
            sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, _DEAD_PEER_MS)
        sock.bind(where)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
