"""A request that kills runners hurts nobody else twice, and does not walk the fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fleet.common.errors import PoisonousRequest
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

BASE = Profile(load_seconds=2.0, slots=4, tokens_per_second=50.0, poison="POISON")
POLICIES = ["weighted", "round_robin", "least_connections", "expected_completion"]


def policy(name: str) -> dict[str, Any]:
    return {"load_balancer": {"policy": name}}


async def ask(fleet: Fleet, text: str = "hello", **options: Any) -> Client:
    await fleet.system.exchange(chat(text=text, **options), client := Client())
    return client


def loads(fleet: Fleet, *servers: str) -> int:
    return sum(fleet[server].host.server.loads_begun for server in servers)


def assert_nobody_blamed(fleet: Fleet) -> None:
    assert fleet.system.breakers.describe() == []
    assert len(fleet.system.scheduler.bans) == 0
    fleet.assert_nothing_left()


@pytest.mark.parametrize("name", POLICIES)
async def test_two_requests_that_crash_their_runner(autojump_clock: MockClock, name: str) -> None:
    """Both are told so; neither server is shut out, and the next good request is answered."""
    async with open_fleet(("a", BASE), ("b", BASE), **policy(name)) as fleet:
        for number in range(2):
            client = await ask(fleet, f"POISON {number}")
            assert (client.status, client.headers["x-fleet-attempts"]) == (500, "2")
            assert_nobody_blamed(fleet)
        assert (await ask(fleet)).complete


@pytest.mark.parametrize("name", POLICIES)
async def test_a_convicted_request_is_refused_at_once_and_harms_no_runner(autojump_clock: MockClock, name: str) -> None:
    async with open_fleet(("a", BASE), ("b", BASE), ("c", BASE), **policy(name)) as fleet:
        assert (await ask(fleet, "POISON")).status == 500
        before = loads(fleet, *"abc")
        assert before == 2, "two runners, and not the third"
        for _ in range(10):
            with pytest.raises(PoisonousRequest) as refused:
                await ask(fleet, "POISON")
            assert refused.value.status == 500
        assert loads(fleet, *"abc") == before
        assert (await ask(fleet, "poisonless")).complete
        await trio.sleep(301.0)
        assert (await ask(fleet, "POISON")).status == 500
        assert_nobody_blamed(fleet)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("stream", [True, False])
async def test_whoever_waits_beside_a_poisonous_request_is_answered(
    autojump_clock: MockClock, name: str, stream: bool
) -> None:
    """Their runner dies under them once; the poison is alone when it kills its second."""
    slow = replace(BASE, prefill_per_second=50.0)
    async with open_fleet(("a", slow), ("b", slow), **policy(name)) as fleet:
        clients = [Client() for _ in range(8)]
        killer = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.system.exchange, chat(text="POISON " * 4), killer)
            for number, client in enumerate(clients):
                call = chat(text=f"please {number} " * 20, stream=stream)
                nursery.start_soon(fleet.system.exchange, call, client)
        assert killer.status == 500
        assert [client.status for client in clients] == [200] * 8
        assert all(client.finished for client in clients)
        for view in fleet.system.breakers.describe():
            assert sum(view.error_counts.values()) <= 1, "one death is one failure at the most"
        fleet.assert_nothing_left()


async def test_a_suspect_waits_until_it_is_alone_on_a_busy_fleet(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", BASE), ("b", BASE), **policy("round_robin")) as fleet:
        over = trio.Event()
        statuses: list[int] = []

        async def talk() -> None:
            while not over.is_set():
                statuses.append((await ask(fleet, tokens=20)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(talk)
            await trio.sleep(10.0)
            statuses.clear()
            client = await ask(fleet, "POISON", stream=False)
            assert client.status == 500
            await trio.sleep(10.0)
            over.set()
        assert set(statuses) == {200}
        fleet.assert_nothing_left()


async def test_a_lone_server_is_asked_again_and_blamed(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", BASE)) as fleet:
        for _ in range(2):
            assert (await ask(fleet, "POISON")).status == 500
        assert fleet.system.breakers.describe() != []
