"""What was kept and cannot be used is set aside, and a description that nobody can use is not kept at all."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.storage.journal import Document, Journal
from actors.upstream.address import BackendAddress, server_name
from actors.upstream.control_client import OllamaClient
from fleet.common.errors import BackendUnreachable, BadRequest, ServerNotFound
from fleet.common.ids import ServerId
from fleet.config import ServerSpec
from tests.kit.fleets.fleet import open_fleet

A, B, X = ServerId("a"), ServerId("b"), ServerId("x")
POISON = [
    "http://10.0.0.256:11434",
    "http://[::1]11434",
    "http://xn--a",
    "http://" + "l" * 64,
    "http://[::1%25zzz]",
    "",
    7,
]


def kept(**servers: Any) -> Journal:
    """A journal over a store that holds these servers, as the API had added them."""
    documents: dict[str, Document] = {name: {"spec": spec, "base": None} for name, spec in servers.items()}
    journal = Journal({"server": documents})
    journal.attached = True
    return journal


def plain(name: str, url: object) -> dict[str, object]:
    return {"id": name, "url": url, "max_concurrency": 4, "priority": 1, "tags": []}


@pytest.mark.parametrize("url", POISON, ids=lambda url: str(url)[:24])
async def test_a_store_with_an_entry_that_nobody_can_use_starts_and_keeps_it(
    url: object, autojump_clock: MockClock
) -> None:
    journal = kept(x=plain("x", url))
    async with open_fleet("a", journal=journal) as fleet:
        assert set(fleet.system.servers) == {A}
        assert journal.aside["server", "x"].startswith("url: ")
        assert journal.sources["server"]("x") == {"spec": plain("x", url), "base": None}


@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[fe80::1]:1", "http://127.0.0.1:5100"])
async def test_an_entry_that_points_where_no_server_may_be_any_more_is_set_aside(
    url: str, autojump_clock: MockClock
) -> None:
    journal = kept(x=plain("x", url))
    async with open_fleet("a", journal=journal) as fleet:
        assert set(fleet.system.servers) == {A}
        assert journal.aside["server", "x"].startswith("url: ")


async def test_what_was_set_aside_can_be_removed_and_is_then_forgotten(autojump_clock: MockClock) -> None:
    journal = kept(x=plain("x", POISON[0]))
    async with open_fleet("a", journal=journal) as fleet:
        await fleet.system.remove_server(X)
        assert journal.aside == {}
        assert journal.sources["server"]("x") is None
        assert ("server", "x") in journal.touched
        with pytest.raises(ServerNotFound):
            await fleet.system.remove_server(X)
        assert set(fleet.system.servers) == {A}


async def test_what_was_set_aside_is_replaced_by_a_good_description(autojump_clock: MockClock) -> None:
    journal = kept(b=plain("b", POISON[0]))
    async with open_fleet("a", journal=journal) as fleet:
        fleet.memory.backends["b"] = fleet.memory.backends["a"]  # type: ignore[index]
        good = ServerSpec.model_validate(plain("b", "http://b.internal:1"))
        fleet.system.add_server(good)
        assert journal.aside == {}
        document = journal.sources["server"]("b")
        assert document is not None
        assert document["spec"]["url"] == good.url


def unchecked(name: str, url: str) -> ServerSpec:
    """As if the validation had a hole."""
    good = ServerSpec.model_validate(plain(name, "http://x.internal:1"))
    return good.model_copy(update={"url": url})


@pytest.mark.parametrize("url", ["http://10.0.0.256:11434", "http://xn--a", "http://192.168.1.300"])
async def test_a_description_that_the_clients_refuse_is_refused_before_anything_is_kept(
    url: str, autojump_clock: MockClock
) -> None:
    journal = Journal()
    async with open_fleet("a", "b", journal=journal) as fleet:
        journal.attached = True
        before = fleet.system.config
        fleet.memory.backends["x"] = fleet.memory.backends["a"]  # type: ignore[index]
        specs = (*before.servers, unchecked("x", url))
        with pytest.raises(BadRequest, match="url"):
            fleet.system.add_server(unchecked("x", url))
        with pytest.raises(BadRequest, match="url"):
            fleet.system.change_server(unchecked("a", url))
        with pytest.raises(BadRequest, match="url"):
            fleet.system.membership.follow(specs)
        assert fleet.system.config is before
        assert not journal.touched
        assert set(fleet.system.servers) == {A, B}
        fleet.system.change_server(before.servers[1].model_copy(update={"priority": 7}))  # later changes go on as ever
        assert list(journal.touched) == [("server", "b")]


async def _raising() -> trio.abc.Stream:
    ("x" * 64).encode("idna")  # as the resolver does
    raise AssertionError


async def test_whatever_the_client_makes_of_a_name_is_a_backend_that_cannot_be_reached() -> None:
    client = OllamaClient(ServerSpec.model_validate(plain("a", "http://a")), dial=_raising)
    with pytest.raises(BackendUnreachable, match="a: "):
        await client.tags(1.0)


@pytest.mark.parametrize(
    ("url", "name"), [("https://A.example.", "a.example"), ("https://[fe80::1%eth0]:1", "fe80::1"), ("https://b", "b")]
)
def test_certificates_know_neither_zones_nor_a_dot_at_the_end(url: str, name: str) -> None:
    assert server_name(BackendAddress.parse(url).host) == name
