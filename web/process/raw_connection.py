"""What the server underneath knows about one connection, beyond ASGI; found in the scope."""

from __future__ import annotations

import select
import socket
from typing import Any, Final, Protocol, cast

KEY: Final = "fleet.wire"
# Where the flag does not exist, the end of the other side shows as POLLHUP, which is always reported.
_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0)


class Wire(Protocol):
    """One connection, as its running request sees it."""

    @property
    def expecting(self) -> bool:
        """Whether the client holds its body back until it is invited."""
        ...

    async def invite(self) -> None:
        """Say `100 Continue` to a client that waits for it; otherwise nothing."""
        ...

    def left(self) -> bool:
        """Whether the client has closed or reset the connection, even behind bytes that nobody has read yet."""
        ...


class _Unknown:
    """A server that tells nothing."""

    expecting = False

    async def invite(self) -> None: ...

    def left(self) -> bool:
        return False


UNKNOWN: Final[Wire] = _Unknown()


def wire_of(scope: Any) -> Wire:
    """The connection behind an ASGI scope."""
    return cast(Wire, (scope.get("extensions") or {}).get(KEY, UNKNOWN))


def hung_up(sock: socket.socket) -> bool:
    """Whether the other side has closed; reads nothing. False where the system cannot tell.

    A close that waits in the client's kernel behind bytes for which we have no room has not happened yet.
    """
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    try:
        poll.register(sock.fileno(), _HUNG_UP)
    except ValueError:
        return True  # closed by ourselves
    return bool(poll.poll(0))
