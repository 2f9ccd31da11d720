"""Things that went wrong once, each named after what went wrong."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.dispatch.dispatcher import Dispatcher
from actors.requests.exchange import Exchange
from actors.state.messages import ServerChanged
from actors.state.ticket import PendingTicket
from fleet.breakers.gate import GateState
from fleet.common.errors import FleetError, NoServer, QueueTimeout, TotalTimeout
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.protocol.call import Call
from fleet.scheduling.server_state import Admin, Health, Order
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet
from tests.kit.suite.records import recent

A = ServerId("a")
PAIR = Pair(A, ModelName("m:latest"))


async def outcome_of(fleet: Fleet, call: Call) -> str:
    await wait_all_tasks_blocked()
    (record,) = [r for r in recent(fleet.system.statistics.request_log) if r.request_id == call.request_id]
    return record.outcome


async def test_a_waiter_that_left_during_a_dispatcher_restart_took_another_waiters_line_along(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor dispatcher crashed")
    async with open_fleet("a", slots=1, timeouts={"queue": 100.0}) as fleet, trio.open_nursery() as nursery:
        running, stays = Client(), Client()
        leaves = trio.CancelScope()

        async def leaver() -> None:
            with leaves:
                await fleet.system.exchange(chat(), Client())

        nursery.start_soon(fleet.system.exchange, chat(tokens=200), running)
        await running.first.wait()
        nursery.start_soon(leaver)
        await wait_all_tasks_blocked()
        nursery.start_soon(fleet.system.exchange, chat(), stays)
        await wait_all_tasks_blocked()
        original = Dispatcher._handle

        def crash_once(self: Dispatcher, message: Any, now: float) -> None:
            monkeypatch.setattr(Dispatcher, "_handle", original)
            raise RuntimeError("injected")

        monkeypatch.setattr(Dispatcher, "_handle", crash_once)
        fleet.system.scheduler.mailbox.cast(ServerChanged(A))
        leaves.cancel()  # its Withdrawn is read by the next incarnation, which never saw its ticket
        while not stays.finished:
            await trio.sleep(0.5)
        assert stays.complete
    fleet.assert_nothing_left()


async def test_a_server_that_denied_a_listed_model_kept_getting_its_requests(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.faults.set("status:404:model 'm' not found")
        statuses = []
        for _ in range(60):
            await fleet.system.exchange(chat(stream=False), client := Client())
            statuses.append(client.status)
        assert statuses == [200] * 60
        assert len(fleet["a"].host.seen("/api/chat")) <= 2


async def test_a_server_removed_while_a_request_was_in_the_mailbox_crashed_the_dispatcher(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_fleet("a") as fleet:
        cell = fleet.system.servers[A]
        submit = Exchange._submit

        def submit_and_remove(exchange: Exchange) -> PendingTicket:
            ticket = submit(exchange)
            fleet.system.membership._forget(cell)
            return ticket

        monkeypatch.setattr(Exchange, "_submit", submit_and_remove)
        with pytest.raises(FleetError):
            await fleet.system.exchange(chat(), Client())
        await wait_all_tasks_blocked()
        assert fleet.system.scheduler.memory.total.in_use == 0
        assert cell.state.in_use == 0


async def test_a_fleet_wide_cap_starved_the_other_server(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", monitoring={"max_concurrent_requests": 1}) as fleet:
        order: list[str] = []

        async def ask(name: str, server: str, priority: int) -> None:
            await fleet.system.exchange(chat(pinned=server, priority=priority), Client())
            order.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first", "a", 0)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, "urgent", "b", 10)
            for number in range(5):
                nursery.start_soon(ask, f"a{number}", "a", 0)
        assert order[:2] == ["first", "urgent"]
        fleet.assert_nothing_left()


async def test_the_cap_did_not_wake_anybody_when_the_busy_server_was_removed(autojump_clock: MockClock) -> None:
    config: dict[str, Any] = {"monitoring": {"max_concurrent_requests": 1}, "health": {"interval": 5000.0}}
    async with open_fleet("a", "b", **config) as fleet, trio.open_nursery() as nursery:
        busy, waiting = Client(), Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=5000, pinned="a"), busy)
        await busy.first.wait()
        nursery.start_soon(fleet.system.exchange, chat(pinned="b"), waiting)
        await wait_all_tasks_blocked()
        await fleet.system.remove_server(A, drain=False)
        with trio.fail_after(20):
            while not waiting.finished:
                await trio.sleep(0.5)
        assert waiting.complete


async def test_a_burst_of_failures_went_past_the_retry_budget(autojump_clock: MockClock) -> None:
    retry = {"budget_floor": 2, "budget_ratio": 0.0}
    async with open_fleet("a", "b", slots=100, retry=retry, enable_circuit_breaker=False) as fleet:
        for server in "ab":
            fleet[server].host.faults.set("status:503:down")
        clients = [Client() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
        assert sum(int(client.headers["x-fleet-attempts"]) - 1 for client in clients) == 2


async def test_removing_a_drained_server_waited_for_the_whole_drain_timeout(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet.system.order(A, Order.DRAIN, "test")
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.admin is Admin.DRAINED
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.system.remove_server, A)
            nursery.start_soon(fleet.system.remove_server, A)
        assert trio.current_time() - began < 1.0
        assert list(fleet.system.servers) == ["b"]


async def test_a_removal_whose_caller_left_kept_the_server_drained_for_good(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as nursery:
        running = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=200, pinned="a"), running)
        await running.first.wait()
        with trio.move_on_after(0.1):
            await fleet.system.remove_server(A)
        while not running.finished:
            await trio.sleep(0.5)
        await wait_all_tasks_blocked()
        assert running.complete
        assert list(fleet.system.servers) == ["b"]


async def test_one_poisonous_ticket_crashed_the_dispatcher_for_ever(
    autojump_clock: MockClock, expected_errors: list[str]
) -> None:
    expected_errors += ["actor dispatcher crashed", "request cannot be dispatched"]
    async with open_fleet("a") as fleet:
        poison = dataclasses.replace(chat(), priority="high")  # type: ignore[arg-type]
        fleet.system.pause(True)
        await wait_all_tasks_blocked()
        with pytest.raises(FleetError) as caught:
            await fleet.system.exchange(poison, Client())
        assert caught.value.status == 500
        fleet.system.pause(False)
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete


async def test_a_recorder_that_always_crashed_took_the_fleet_down(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors += ["actor request log crashed", "actor request log is given up"]
    async with open_fleet("a") as fleet:
        recorder = fleet.system.statistics.request_log
        original = recorder.digest
        monkeypatch.setattr(recorder, "digest", lambda record: 1 / 0)
        for _ in range(10):
            await fleet.system.exchange(chat(), client := Client())
            assert client.complete
            await trio.sleep(2.0)
        before = recorder.seen
        monkeypatch.setattr(recorder, "digest", original)
        await trio.sleep(40.0)
        assert recorder.seen > before, "what waited while the recorder rested is digested"
        call = chat()
        await fleet.system.exchange(call, Client())
        assert await outcome_of(fleet, call) == "completed"


async def test_time_spent_in_the_queue_was_blamed_on_the_backend(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, timeouts={"total": 12.0}) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=500), Client())
        await wait_all_tasks_blocked()
        with pytest.raises(TotalTimeout):
            await fleet.system.exchange(chat(stream=False, tokens=5000), Client())
        await wait_all_tasks_blocked()
        assert fleet.system.breakers.describe() == []


async def test_a_request_in_the_mailbox_was_given_to_a_server_just_drained(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        for _ in range(20):
            fleet.cell("a").state.order(Order.DRAIN, trio.current_time(), "test")  # ServerChanged is still to come
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-server"] == "b"


async def test_a_long_healthy_trial_was_taken_for_a_hung_one(autojump_clock: MockClock) -> None:
    breaker = {"adaptive": False, "half_open_timeout": 60_000}
    async with open_fleet("a", circuit_breaker=breaker) as fleet, trio.open_nursery() as nursery:
        fleet["a"].host.faults.set("status:503:down")
        for _ in range(3):
            await fleet.system.exchange(chat(), Client())
        fleet["a"].host.faults.clear()
        await trio.sleep(135.0)
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.LIMITED
        long = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=10_000), long)
        await trio.sleep(150.0)
        assert not long.finished
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.LIMITED
        nursery.cancel_scope.cancel()


async def test_a_stale_404_hid_a_503(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", load_balancer={"policy": "round_robin"}) as fleet:
        fleet["a"].host.faults.set("status:503:busy")
        fleet["b"].host.faults.set("status:404:model 'm' not found")
        for _ in range(4):
            await fleet.system.exchange(chat(), client := Client())
            assert client.status == 503


async def test_models_of_a_server_never_seen_were_not_found(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        spec = fleet.cell("b").state.spec
        await fleet.system.remove_server(ServerId("b"), drain=False)
        fleet["b"].kill()
        fleet.system.add_server(spec)
        await fleet.system.probe(ServerId("b"), 5.0)
        assert fleet.cell("b").state.health is Health.UNHEALTHY
        with pytest.raises(NoServer):
            await fleet.system.exchange(chat("only-on-b"), Client())


async def test_invented_names_on_pinned_routes_made_breakers_without_end(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet["a"].host.faults.set("status:503:down")
        for number in range(30):
            await fleet.system.exchange(chat(f"invented{number}", pinned="a"), Client())
        await wait_all_tasks_blocked()
        assert fleet.system.breakers.describe() == []
        assert len(fleet.cell("a").state.stats) <= 2


async def test_answers_in_one_piece_made_a_server_look_slow(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        await fleet.system.exchange(chat(stream=False, tokens=500), Client())
        assert fleet.cell("a").state.stats_of(PAIR.model).first_byte.value is None
        await fleet.system.exchange(chat(tokens=500), Client())
        assert 0.0 < (fleet.cell("a").state.stats_of(PAIR.model).first_byte.value or 0.0) < 1.0


async def test_a_client_that_left_during_a_retry_was_recorded_as_a_refusal(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", load_balancer={"policy": "round_robin"}) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        fleet["b"].host.faults.set("hang-before-headers")
        call = chat()
        with trio.move_on_after(5.0):
            await fleet.system.exchange(call, Client())
        assert await outcome_of(fleet, call) == "client_left"


async def test_a_client_that_closed_with_everything_in_its_hands_counted_as_left(autojump_clock: MockClock) -> None:
    class Hasty(Client):
        async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
            await trio.sleep_forever()

    async with open_fleet("a") as fleet:
        for stream in (True, False):
            call = chat(stream=stream)
            with trio.move_on_after(8.0):
                await fleet.system.exchange(call, Hasty())
            assert await outcome_of(fleet, call) == "completed"
        fleet.assert_nothing_left()


async def test_last_words_to_a_client_that_does_not_read_took_for_ever(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"total": 6.0, "write": 5.0}) as fleet:
        client = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.system.exchange, chat(tokens=5000), client)
            await client.first.wait()
            await trio.sleep(2.0)
            client.stop_reading()
        assert client.aborted
        assert not client.finished
        assert trio.current_time() < 40.0
        fleet.assert_nothing_left()


async def test_maintenance_never_revoked_anything(autojump_clock: MockClock) -> None:
    async with open_fleet("a", drain_timeout=5.0) as fleet, trio.open_nursery() as nursery:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=5000), client)
        await client.first.wait()
        fleet.system.order(A, Order.MAINTAIN, "test")
        await trio.sleep(8.0)
        assert fleet.cell("a").state.admin is Admin.MAINTENANCE
        assert "error" in client.records[-1]
        fleet.assert_nothing_left()


async def test_queue_timeouts_did_not_add_up_over_attempts(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=1, timeouts={"queue": 10.0}) as fleet, trio.open_nursery() as nursery:
        for server in "ab":
            nursery.start_soon(fleet.system.exchange, chat(tokens=5000, pinned=server), Client())
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(QueueTimeout):
            await fleet.system.exchange(chat(), Client())
        assert trio.current_time() - began == pytest.approx(10.0, abs=0.1)
        nursery.cancel_scope.cancel()


async def test_a_server_that_dies_under_load_used_up_the_retry_budget(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=40) as fleet:
        clients = [Client() for _ in range(80)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
            await trio.sleep(1.0)
            fleet["a"].kill()
        assert all(client.complete for client in clients)
