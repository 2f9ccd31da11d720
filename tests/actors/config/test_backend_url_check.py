"""A new server's URL is checked where its name leads, too."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from actors.config import backend_url_check
from actors.config.backend_url_check import BackendUrlRefused, checked
from fleet.config import BackendsSection

DEFAULT = BackendsSection()


class Names(trio.abc.HostnameResolver):
    """A name server; a name without addresses does not exist, and one with None never answers."""

    def __init__(self, **known: list[str] | None) -> None:
        self.known = known
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *more: Any, **named: Any) -> Any:
        name = host.decode()
        self.asked.append(name)
        addresses = self.known.get(name, [])
        if addresses is None:
            await trio.sleep_forever()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]

    async def getnameinfo(self, sockaddr: Any, flags: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    resolver = Names(good=["10.0.0.1"], evil=["10.0.0.1", "169.254.169.254"], v6=["fd00:ec2::254"], slow=None)
    before = trio.socket.set_custom_hostname_resolver(resolver)
    yield resolver
    trio.socket.set_custom_hostname_resolver(before)


@pytest.mark.parametrize("host", ["good", "10.0.0.1", "nowhere", "[::1]", "127.1"])
async def test_good_places_and_names_that_do_not_exist_yet_are_accepted(host: str, names: Names) -> None:
    await checked(f"http://{host}:11434", DEFAULT)


@pytest.mark.parametrize("host", ["evil", "v6", "169.254.169.254", "0xA9FEA9FE", "metadata.google.internal"])
async def test_bad_places_are_refused_also_behind_a_name(host: str, names: Names) -> None:
    with pytest.raises(BackendUrlRefused) as caught:
        await checked(f"http://{host}:11434", DEFAULT)
    assert (caught.value.status, caught.value.reason) == (400, "BACKEND_REFUSED")
    assert caught.value.message.startswith("url: ")


async def test_what_is_refused_as_written_is_not_even_looked_up(names: Names) -> None:
    with pytest.raises(BackendUrlRefused):
        await checked("http://metadata.google.internal", DEFAULT)
    await checked("http://10.0.0.1", DEFAULT)
    assert names.asked == []


async def test_names_are_held_against_the_allowed_networks(names: Names) -> None:
    await checked("http://good", BackendsSection(allowed=("10.0.0.0/8",)))
    with pytest.raises(BackendUrlRefused, match="allowed"):
        await checked("http://good", BackendsSection(allowed=("11.0.0.0/8",)))
    with pytest.raises(BackendUrlRefused, match="private"):
        await checked("http://good", BackendsSection(allow_private=False))


async def test_a_name_server_that_does_not_answer_holds_nobody_up(names: Names, autojump_clock: Any) -> None:
    began = trio.current_time()
    await checked("http://slow", DEFAULT)
    assert trio.current_time() - began == pytest.approx(backend_url_check.LOOKUP)
