"""One request through the whole fleet, on virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from fleet.common.errors import ModelNotFound, NoServer, QueueFull, QueueTimeout, TotalTimeout
from tests.kit.fleets.fleet import Client, chat, open_fleet


async def test_a_stream_goes_through(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        client = Client()
        await fleet.system.exchange(chat(), client)
        assert client.status == 200
        assert client.complete
        assert client.headers["x-fleet-server"] == "a"
        assert client.headers["x-fleet-attempts"] == "1"
        assert client.headers["content-type"] == "application/x-ndjson"
        fleet.assert_nothing_left()


async def test_an_answer_in_one_piece_goes_through(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        client = Client()
        await fleet.system.exchange(chat(stream=False), client)
        assert client.records[0]["done"] is True
        assert client.finished
        fleet.assert_nothing_left()


async def test_unknown_model_is_ollamas_own_404(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        with pytest.raises(ModelNotFound) as caught:
            await fleet.system.exchange(chat("None"), Client())
        assert caught.value.message == "model 'None' not found"


async def test_the_queue_serves_in_order_of_arrival(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet:
        order: list[int] = []

        async def ask(number: int) -> None:
            await fleet.system.exchange(chat(), Client())
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
        assert order == list(range(20))
        assert fleet["a"].host.max_active == 1
        fleet.assert_nothing_left()


async def test_a_full_queue_refuses_at_once(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, queue={"max_size": 2}) as fleet, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fleet.system.exchange, chat(), Client())
            await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        with pytest.raises(QueueFull) as caught:
            await fleet.system.exchange(chat(), Client())
        assert trio.current_time() == before
        assert caught.value.retry_after is not None
        nursery.cancel_scope.cancel()


async def test_waiting_too_long_is_a_queue_timeout(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, timeouts={"queue": 3.0}) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=1000), Client())
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(QueueTimeout):
            await fleet.system.exchange(chat(), Client())
        assert not fleet.system.scheduler.tickets
        nursery.cancel_scope.cancel()


async def test_the_total_time_is_one_deadline_over_everything(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"total": 4.0}) as fleet:
        fleet["a"].host.faults.set("hang-before-headers")
        began = trio.current_time()
        with pytest.raises(TotalTimeout):
            await fleet.system.exchange(chat(), Client())
        assert trio.current_time() - began == pytest.approx(4.0, abs=0.1)
        fleet.assert_nothing_left()


async def test_a_stream_over_the_total_time_ends_with_an_error_line(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"total": 6.0}) as fleet:
        client = Client()
        await fleet.system.exchange(chat(tokens=5000), client)
        assert "longer than 6 s" in client.records[-1]["error"]
        assert client.finished
        fleet.assert_nothing_left()


@pytest.mark.parametrize("phase", ["queued", "loading", "decoding"])
async def test_a_client_that_leaves_frees_its_slot_at_once(autojump_clock: MockClock, phase: str) -> None:
    async with open_fleet("a", slots=1) as fleet:
        client = Client()
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def ask() -> None:
                with scope:
                    await fleet.system.exchange(chat(tokens=500), client)

            if phase == "queued":
                nursery.start_soon(fleet.system.exchange, chat(tokens=500), Client())
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask)
            if phase == "decoding":
                await client.first.wait()
            else:
                await trio.sleep(0.5)
            left_at = trio.current_time()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert trio.current_time() - left_at < 0.1
            if phase != "queued":
                fleet.assert_nothing_left()
                assert fleet["a"].host.active_requests == 0
            assert not fleet.system.scheduler.tickets
            nursery.cancel_scope.cancel()
        fleet.assert_nothing_left()


async def test_failover_to_another_server_before_the_first_byte(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.faults.set("status:503:busy")
        for _ in range(6):
            client = Client()
            await fleet.system.exchange(chat(), client)
            assert client.status == 200
            assert client.headers["x-fleet-server"] == "b"
        fleet.assert_nothing_left()


async def test_when_all_fail_the_first_servers_own_words_are_passed_on(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        for server in "ab":
            fleet[server].host.faults.set("status:503:out of coffee")
        client = Client()
        await fleet.system.exchange(chat(), client)
        assert client.status == 503
        assert "out of coffee" in client.body.decode()
        assert client.headers["x-fleet-attempts"] == "2"
        fleet.assert_nothing_left()


async def test_client_faults_are_neither_retried_nor_blamed(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        for server in "ab":
            fleet[server].host.faults.set('status:500:option "num_ctx" must be of type integer')
        for _ in range(10):
            client = Client()
            await fleet.system.exchange(chat(), client)
            assert client.status == 500
            assert client.headers["x-fleet-attempts"] == "1"
        assert fleet.system.breakers.describe() == []


async def test_stale_inventory_goes_elsewhere_and_is_corrected(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.server.shelf.remove("m:latest")
        for _ in range(4):
            client = Client()
            await fleet.system.exchange(chat(), client)
            assert client.status == 200
            assert client.headers["x-fleet-server"] == "b"
        assert "m:latest" not in fleet.cell("a").state.models


async def test_a_draining_fleet_refuses(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet.system.drain()
        with pytest.raises(Exception, match="shutting down"):
            await fleet.system.exchange(chat(), Client())


async def test_no_server_at_all(autojump_clock: MockClock) -> None:
    async with open_fleet() as fleet:
        with pytest.raises((NoServer, ModelNotFound)):
            await fleet.system.exchange(chat(), Client())


async def test_pinned_requests_go_to_their_server_only(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        for _ in range(5):
            client = Client()
            await fleet.system.exchange(chat(pinned="b"), client)
            assert client.headers["x-fleet-server"] == "b"
        assert not fleet["a"].host.seen("/api/chat")
