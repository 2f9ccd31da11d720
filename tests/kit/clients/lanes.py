"""The two lanes into the product, and how a test chooses: the edge on its ports, or the Quart app behind it.

A test (or a module, by its `pytestmark`) marked with `both_lanes` runs twice; what it serves is then reached through
the edge's port, or directly over the app's private Unix socket. A test that says nothing goes through the edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
import trio

EDGE: Final = "edge"
QUART: Final = "quart"
LANES: Final = (EDGE, QUART)
UNIX: Final = "unix:"
"""What the URL of a Unix socket begins with here; the path comes after it."""

both_lanes = pytest.mark.parametrize("lane", LANES, indirect=True)

_chosen = [EDGE]


@pytest.fixture(autouse=True)
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which lane this test's products are reached by."""
    chosen: str = getattr(request, "param", EDGE)
    _chosen.append(chosen)
    yield chosen
    _chosen.pop()


def current() -> str:
    """The lane of the running test."""
    return _chosen[-1]


async def connect(url: str) -> trio.SocketStream:
    """A connection to `http://host:port`, or to a Unix socket."""
    if url.startswith(UNIX):
        return await trio.open_unix_socket(url.removeprefix(UNIX))
    host, _, port = url.removeprefix("http://").partition(":")
    return await trio.open_tcp_stream(host, int(port))


def base_url(url: str) -> str:
    """What an HTTP client library is given as the address; over a Unix socket any name will do."""
    return "http://localhost" if url.startswith(UNIX) else url


def socket_path(url: str) -> str | None:
    """What an HTTP client's transport is given as `uds`."""
    return url.removeprefix(UNIX) if url.startswith(UNIX) else None
