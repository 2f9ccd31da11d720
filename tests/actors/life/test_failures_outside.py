"""Every row of the failure table that is not about a crash of ours: servers, clients, operators."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.common.errors import BackendBroke, NoServer, QueueFull, ShuttingDown
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Admin, Order
from tests.kit.fleets.fleet import Client, chat, open_fleet
from tests.kit.suite.records import recent

PAIR = Pair(ServerId("a"), ModelName("m:latest"))


@pytest.mark.parametrize(
    "fault", ["refuse", "reset-before-headers", "reset-after-headers", "garbage", "status:502", "hang-before-headers"]
)
async def test_backend_refuses_or_stalls_before_the_first_byte(autojump_clock: MockClock, fault: str) -> None:
    """Next attempt elsewhere under the same deadline; the failure is counted once."""
    async with open_fleet("a", "b", timeouts={"first_byte": 20.0}, load_balancer={"policy": "round_robin"}) as fleet:
        fleet["a"].host.faults.set(fault)
        clients = [Client() for _ in range(2)]
        for client in clients:
            await fleet.system.exchange(chat(), client)
            assert client.complete
            assert client.headers["x-fleet-server"] == "b"
        await wait_all_tasks_blocked()
        view = fleet.system.breakers.get(PAIR)
        assert view is not None
        attempts = sum(int(client.headers["x-fleet-attempts"]) - 1 for client in clients)
        assert attempts >= 1
        assert view.failure_count == attempts
        fleet.assert_nothing_left()


@pytest.mark.parametrize("fault", ["reset-mid-stream:3", "stall-mid-stream:3"])
async def test_backend_dies_mid_stream(autojump_clock: MockClock, fault: str) -> None:
    """In-band error, end; counted once, no retry."""
    async with open_fleet("a", "b", timeouts={"idle": 10.0}) as fleet:
        for server in "ab":
            fleet[server].host.faults.set(fault)
        client = Client()
        await fleet.system.exchange(chat(tokens=20), client)
        assert client.status == 200
        assert client.finished
        assert isinstance(client.records[-1]["error"], str)
        assert client.headers["x-fleet-attempts"] == "1"
        await wait_all_tasks_blocked()
        views = fleet.system.breakers.describe()
        assert [view.failure_count for view in views] == [1]
        fleet.assert_nothing_left()


async def test_an_answer_in_one_piece_that_is_cut_is_never_a_clean_end(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet["a"].host.faults.set("wrong-length")
        client = Client()
        with pytest.raises(BackendBroke) as caught:
            await fleet.system.exchange(chat(stream=False), client)
        assert caught.value.status == 502
        assert not client.finished
        fleet.assert_nothing_left()


async def test_a_stream_without_done_is_passed_on_and_blames_nobody(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet["a"].host.faults.set("no-done")
        for _ in range(5):
            client = Client()
            await fleet.system.exchange(chat(tokens=40), client)  # enough to have repeated itself
            assert client.finished
            assert "error" not in client.records[-1]
            assert not client.complete
        assert fleet.system.breakers.describe() == []
        await wait_all_tasks_blocked()
        assert {record.outcome for record in recent(fleet.system.statistics.request_log)} == {"incomplete"}


@pytest.mark.parametrize("tokens", [5, 25])
async def test_a_server_that_ends_its_streams_early_without_done_was_never_noticed(
    autojump_clock: MockClock, tokens: int
) -> None:
    """Neither fast failures in a row (five tokens take a tenth of a second) nor slower ones go on for long."""
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.faults.set("no-done")
        short = 0
        for _ in range(60):
            await fleet.system.exchange(chat(tokens=tokens), client := Client())
            short += not client.complete
        assert 1 <= short <= 12


async def test_client_leaves(autojump_clock: MockClock) -> None:
    """Ticket withdrawn, neutral; history says client_left."""
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        first = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=100), first)
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await fleet.system.exchange(chat(), Client())
        assert not fleet.system.scheduler.tickets
        await first.first.wait()
        first.leave()
        while fleet.system.in_flight:
            await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        assert [record.outcome for record in recent(fleet.system.statistics.request_log)] == [
            "client_left",
            "client_left",
        ]
        assert fleet.system.breakers.describe() == []
        fleet.assert_nothing_left()


async def test_client_stops_reading(autojump_clock: MockClock) -> None:
    """The lease is revoked after the stall limit; the slot is free though the writer is still stuck."""
    async with open_fleet("a", timeouts={"write": 8.0}) as fleet, trio.open_nursery() as nursery:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=400), client)
        await client.first.wait()
        client.stop_reading()
        began = trio.current_time()
        while fleet.system.in_flight:
            await trio.sleep(0.1)
        assert 7.0 < trio.current_time() - began < 10.0
        fleet.assert_nothing_left()
        assert fleet.system.breakers.describe() == []


async def test_drain_maintenance_remove(autojump_clock: MockClock) -> None:
    """Running requests finish, or are revoked after the drain timeout; everything new goes elsewhere."""
    async with open_fleet("a", "b", drain_timeout=5.0) as fleet, trio.open_nursery() as nursery:
        short, long = Client(), Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=20, pinned="a"), short)
        nursery.start_soon(fleet.system.exchange, chat(tokens=5000, pinned="a"), long)
        await long.first.wait()
        fleet.system.order(ServerId("a"), Order.DRAIN, "test")
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.admin is Admin.DRAINING
        for _ in range(3):
            await fleet.system.exchange(chat(), other := Client())
            assert other.headers["x-fleet-server"] == "b"
        with pytest.raises(NoServer):
            await fleet.system.exchange(chat(pinned="a"), Client())
        await trio.sleep(8.0)
        assert short.complete
        assert "error" in long.records[-1]
        assert fleet.cell("a").state.admin is Admin.DRAINED
        fleet.system.order(ServerId("a"), Order.ACTIVATE, "test")
        await wait_all_tasks_blocked()
        await fleet.system.exchange(chat(pinned="a"), again := Client())
        assert again.complete
        await fleet.system.remove_server(ServerId("a"))
        assert list(fleet.system.servers) == ["b"]
        await fleet.system.exchange(chat(), last := Client())
        assert last.headers["x-fleet-server"] == "b"
        fleet.assert_nothing_left()


async def test_queue_full_queue_paused(autojump_clock: MockClock) -> None:
    """Full: 503 with Retry-After. Paused: keep waiting, and go on when it is over."""
    async with open_fleet("a", queue={"max_size": 1}) as fleet, trio.open_nursery() as nursery:
        fleet.system.pause(True)
        waiting = Client()
        nursery.start_soon(fleet.system.exchange, chat(), waiting)
        await wait_all_tasks_blocked()
        with pytest.raises(QueueFull) as caught:
            await fleet.system.exchange(chat(), Client())
        assert (caught.value.retry_after or 0) >= 1
        await trio.sleep(30.0)
        assert waiting.status == 0
        fleet.system.pause(False)
        while not waiting.finished:
            await trio.sleep(0.5)
        assert waiting.complete


async def test_sigterm(autojump_clock: MockClock) -> None:
    """Running requests finish, waiting and new ones are refused (the signal itself is tested over real sockets)."""
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        running = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=100), running)
        await running.first.wait()
        refused: list[ShuttingDown] = []

        async def wait_in_vain() -> None:
            try:
                await fleet.system.exchange(chat(), Client())
            except ShuttingDown as error:
                refused.append(error)

        nursery.start_soon(wait_in_vain)
        await wait_all_tasks_blocked()
        fleet.system.drain()
        await wait_all_tasks_blocked()
        assert len(refused) == 1
        with pytest.raises(ShuttingDown):
            await fleet.system.exchange(chat(), Client())
        await fleet.system.drained()
        await wait_all_tasks_blocked()
        assert running.complete
        fleet.assert_nothing_left()
