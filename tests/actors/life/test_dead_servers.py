"""Servers that die, come back, or die under a load; waiters that leave at the worst moment."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import Withdrawn
from fleet.breakers.outcomes import ClientLeft
from fleet.scheduling.server_state import Health
from tests.kit.fleets.fleet import Client, chat, open_fleet


async def test_a_dead_server_gets_nothing_and_comes_back(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].kill()
        await trio.sleep(60.0)
        assert fleet.cell("a").state.health is Health.UNHEALTHY
        for _ in range(5):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-attempts"] == "1"
        assert fleet.memory.dialled == {"b": 1}
        probes = fleet["a"].dials
        fleet["a"].restart()
        await trio.sleep(130.0)
        assert fleet["a"].dials > probes
        assert fleet.cell("a").state.health is Health.HEALTHY
        await fleet.system.exchange(chat(pinned="a"), back := Client())
        assert back.complete


async def test_a_server_that_accepts_and_never_answers_gets_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.faults.set("all:hang-before-headers")
        await trio.sleep(60.0)
        assert fleet.cell("a").state.health is Health.UNHEALTHY
        for _ in range(5):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-attempts"] == "1"
        assert fleet["a"].host.seen("/api/tags")
        assert not fleet["a"].host.seen("/api/chat")


async def test_killing_a_backend_mid_load_loses_no_request_that_had_no_byte(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=8) as fleet:
        clients = [Client() for _ in range(8)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
            await trio.sleep(1.0)
            victim, other = ("a", "b") if fleet["a"].host.active_requests else ("b", "a")
            assert fleet[victim].host.active_requests
            fleet[victim].kill()
        assert all(client.complete for client in clients)
        assert {client.headers["x-fleet-server"] for client in clients} == {other}
        fleet.assert_nothing_left()


async def test_a_waiter_that_leaves_as_its_slot_is_freed_leaks_nothing(autojump_clock: MockClock) -> None:
    """The dispatcher hears of the free slot before it hears that the waiter has left."""
    async with open_fleet("a", slots=1) as fleet:
        running = Client()
        async with trio.open_nursery() as nursery:
            first, second = trio.CancelScope(), trio.CancelScope()

            async def ask(scope: trio.CancelScope, client: Client) -> None:
                with scope:
                    await fleet.system.exchange(chat(tokens=500), client)

            nursery.start_soon(ask, first, running)
            await running.first.wait()
            nursery.start_soon(ask, second, Client())
            await wait_all_tasks_blocked()
            (lease,) = fleet.cell("a").leases.values()
            (ticket,) = fleet.system.scheduler.tickets.values()
            ticket.withdrawn = True
            fleet.system.scheduler.tickets.clear()
            lease.close(ClientLeft())  # SlotFreed arrives before Withdrawn
            fleet.system.scheduler.mailbox.cast(Withdrawn(ticket))
            await wait_all_tasks_blocked()
            assert fleet.system.scheduler.memory.total.in_use == 0
            second.cancel()
            first.cancel()
        await wait_all_tasks_blocked()
        fleet.assert_nothing_left()
        await fleet.system.exchange(chat(), after := Client())
        assert after.complete
