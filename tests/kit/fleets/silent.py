"""Ports of this machine on which nobody listens, for as long as they are needed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def silent_ports(count: int) -> Iterator[list[int]]:
    """They refuse every connection. They are bound, so that nobody else is given them meanwhile."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        yield [int(each.getsockname()[1]) for each in held]
