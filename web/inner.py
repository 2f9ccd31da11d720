"""The private door of the Quart app: Hypercorn on a Unix socket that only this process's user can reach.

It hears nobody but the edge, in well-formed requests, so it may believe what the edge says about who asks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from web.bind import Bound

PEER: Final = b"x-fleet-peer"
"""The field in which the edge says who asks; it removes a client's own."""
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Inner:
    """Where the app listens. `path` lies in a directory of mode 0700."""

    path: str
    bound: Bound


@contextmanager
def private_socket() -> Iterator[Inner]:
    """A listening Unix socket in a fresh private directory; both are gone afterwards. Raises OSError."""
    directory = tempfile.mkdtemp(prefix="fleet-")  # 0700 by its own promise
    path = os.path.join(directory, "app.sock")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        yield Inner(path, Bound((sock,), "localhost", 0, "the private socket"))
    finally:
        with contextlib.suppress(OSError):
            sock.close()
        shutil.rmtree(directory, ignore_errors=True)
