"""A server's URL, checked before the fleet talks to it: what is written, and where its name leads today."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import trio

from fleet.common.errors import BadRequest
from fleet.security.backend_addresses import AllowedBackends, address_of, refusal, refused_addresses

LOOKUP: Final = 2.0
"""Seconds a name server has to answer."""


class BackendUrlRefused(BadRequest):
    """`security.backends` does not allow a server there."""

    reason = "BACKEND_REFUSED"


async def checked(url: str, section: AllowedBackends) -> None:
    """Raises BackendRefused if the URL must not be a server's.

    A name that cannot be resolved now is accepted: the server may come later. Cancelled: the lookup goes on by itself
    in its thread, and nobody listens.
    """
    host = urlsplit(url).hostname or ""
    why = refusal(url, section)
    if why is None and address_of(host) is None:
        why = refused_addresses(host, await _addresses(host), section)
    if why is not None:
        raise BackendUrlRefused(f"url: {why}")


async def refused(urls: Mapping[str, str], section: AllowedBackends) -> dict[str, str]:
    """The same about several at one time, by name: only those that must not be a server's, and why."""
    found: dict[str, str] = {}

    async def judge(name: str, url: str) -> None:
        try:
            await checked(url, section)
        except BackendUrlRefused as error:
            found[name] = error.message.removeprefix("url: ")

    async with trio.open_nursery() as nursery:
        for name, url in urls.items():
            nursery.start_soon(judge, name, url)
    return found


async def _addresses(host: str) -> list[str]:
    with trio.move_on_after(LOOKUP):
        try:
            rows = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return [str(row[4][0]) for row in rows]
    return []
