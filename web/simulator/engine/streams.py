"""Ending a connection the hard way."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

import trio

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


def reset(stream: trio.abc.Stream) -> None:
    """Throw the connection away: a TCP reset, or `abort()` of a stream in memory that has one. Returns at once."""
    if isinstance(stream, trio.SocketStream):
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        stream.socket.close()
    elif (abort := getattr(stream, "abort", None)) is not None:
        abort()
    else:
        for half in (getattr(stream, "send_stream", None), getattr(stream, "receive_stream", None)):
            if (close := getattr(half, "close", None)) is not None:
                close()
