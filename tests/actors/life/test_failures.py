"""What happens when things fail: one test for each row of the table in docs/architecture.md, named after it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.dispatch.dispatcher import Dispatcher
from actors.servers.server_actor import ServerActor
from actors.state.messages import DispatcherMail, PauseQueue, Probed, ServerMail, SetAdmin
from fleet.breakers.gate import GateState
from fleet.breakers.outcomes import Signal
from fleet.common.errors import BackendBroke, NoServer, QueueFull, ShuttingDown
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Admin, Health, Order
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet
from tests.kit.suite.records import recent

PAIR = Pair(ServerId("a"), ModelName("m:latest"))


def crash_on(monkeypatch: pytest.MonkeyPatch, actor: type, message: type, times: int = 1) -> list[int]:
    """The actor's handler raises at the next `times` messages of that type; returns a live count of crashes."""
    original: Any = actor._handle  # type: ignore[attr-defined]
    crashes = [0]

    def handle(self: object, mail: DispatcherMail | ServerMail, now: float) -> None:
        if isinstance(mail, message) and crashes[0] < times:
            crashes[0] += 1
            raise RuntimeError("injected")
        original(self, mail, now)

    monkeypatch.setattr(actor, "_handle", handle)
    return crashes


async def ask_all(fleet: Fleet, clients: list[Client], **options: Any) -> None:
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(fleet.system.exchange, chat(**options), client)
            await wait_all_tasks_blocked()


async def test_dispatcher_crashes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """Live streams go on; waiting requests wait and are re-queued by age; servers announce themselves again."""
    expected_errors.append("actor dispatcher crashed")
    async with open_fleet("a", slots=1) as fleet:
        order: list[int] = []

        async def ask(number: int, client: Client) -> None:
            await fleet.system.exchange(chat(tokens=50), client)
            order.append(number)

        clients = [Client() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for number, client in enumerate(clients):
                nursery.start_soon(ask, number, client)
                await wait_all_tasks_blocked()
            await clients[0].first.wait()
            crashes = crash_on(monkeypatch, Dispatcher, PauseQueue)
            fleet.system.pause(False)
            await wait_all_tasks_blocked()
            assert crashes == [1]
        assert order == [0, 1, 2, 3, 4]
        assert all(client.complete for client in clients)
        fleet.assert_nothing_left()


async def test_dispatcher_crashes_with_a_request_in_hand(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """The ticket of the message in hand is found in the cell and queued again."""
    from actors.state.messages import Submitted

    expected_errors.append("actor dispatcher crashed")
    async with open_fleet("a") as fleet:
        crash_on(monkeypatch, Dispatcher, Submitted, times=2)
        client = Client()
        await fleet.system.exchange(chat(), client)
        assert client.complete
        fleet.assert_nothing_left()


async def test_server_actor_crashes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """Live streams go on, leases live in the cell; open leases are recounted."""
    expected_errors.append("actor server a crashed")
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=200), client)
        await client.first.wait()
        crashes = crash_on(monkeypatch, ServerActor, Probed)
        await fleet.system.probe(ServerId("a"), 1.0)
        assert crashes == [1]
        assert fleet.system.in_flight == 1
        await fleet.system.exchange(chat(), other := Client())
        assert other.complete
        while not client.finished:
            await trio.sleep(0.5)
        assert client.complete
        fleet.assert_nothing_left()


async def test_server_actor_crashes_and_the_maintenance_still_ends(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """When it ends lives in the cell; so it does if ending it is what the actor crashes at."""
    expected_errors.append("actor server a crashed")
    async with open_fleet("a", queue={"no_server_grace": 60}) as fleet:
        until = trio.current_time() + 5.0
        await fleet.system.ordered(ServerId("a"), Order.MAINTAIN, "fans", "ada", until)
        crashes = crash_on(monkeypatch, ServerActor, Probed)
        await fleet.system.probe(ServerId("a"), 1.0)
        assert crashes == [1]
        order, at_the_end = ServerActor._order, iter((True,))

        def crashing(self: ServerActor, given: SetAdmin, now: float) -> None:
            if next(at_the_end, False):
                raise RuntimeError("injected")
            order(self, given, now)

        monkeypatch.setattr(ServerActor, "_order", crashing)
        assert fleet.cell("a").state.admin is Admin.MAINTENANCE
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete
        assert until <= trio.current_time() < until + 5.0
        assert next(at_the_end, None) is None
        assert fleet.cell("a").state.by == "ada"


@pytest.mark.parametrize("stalled", ["client", "backend"])
async def test_server_actor_crashes_and_goes_on_watching(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str], stalled: str
) -> None:
    """What stalls after the crash is revoked as ever, though no new lease wakes the watch."""
    expected_errors.append("actor server a crashed")
    limits = {"write": 8.0, "idle": 8.0}
    async with open_fleet("a", timeouts=limits) as fleet, trio.open_nursery() as nursery:
        if stalled == "backend":
            fleet["a"].host.faults.set("stall-mid-stream:100")
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=400), client)
        await client.first.wait()
        crashes = crash_on(monkeypatch, ServerActor, Probed)
        await fleet.system.probe(ServerId("a"), 1.0)
        assert crashes == [1]
        if stalled == "client":
            client.stop_reading()
        with trio.fail_after(15.0):
            while fleet.system.in_flight:
                await trio.sleep(0.1)
        assert not client.complete
        fleet.assert_nothing_left()
        nursery.cancel_scope.cancel()


async def test_server_actor_crash_loops(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """Streams run to their end, the other server serves, this one counts as down and is tried again later."""
    expected_errors += ["actor server a crashed", "server is given up"]
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as nursery:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=300, pinned="a"), client)
        await client.first.wait()
        original = ServerActor._recover

        def recover(actor: ServerActor, now: float) -> None:
            if actor._cell.state.id == "a":
                raise RuntimeError("injected")
            original(actor, now)

        crash_on(monkeypatch, ServerActor, Probed, times=1)
        monkeypatch.setattr(ServerActor, "_recover", recover)
        fleet.cell("a").mailbox.cast(Probed("", [], [], None, 0.0))
        await trio.sleep(3.0)
        assert fleet.cell("a").state.health is Health.UNHEALTHY
        assert "crashing" in fleet.cell("a").state.why
        for _ in range(3):
            await fleet.system.exchange(chat(), other := Client())
            assert other.headers["x-fleet-server"] == "b"
        while not client.finished:
            await trio.sleep(0.5)
        assert client.complete
        monkeypatch.setattr(ServerActor, "_recover", original)
        await trio.sleep(60.0)
        assert fleet.cell("a").state.health is Health.HEALTHY
        fleet.assert_nothing_left()


async def test_breaker_actor_crashes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """The gate keeps its last verdict, so the dispatcher goes on keeping away from the pair."""
    from actors.breakers.breaker_actor import BreakerActor

    expected_errors.append("crashed")
    async with open_fleet("a", "b") as fleet:
        for _ in range(5):
            fleet.system.breakers.record(PAIR, Signal.FAILURE, "backend_broke", 0)
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.SHUT
        original = BreakerActor._handle
        crashes = [0]

        def handle(self: BreakerActor, *args: Any) -> Any:
            if not crashes[0]:
                crashes[0] = 1
                raise RuntimeError("injected")
            return original(self, *args)

        monkeypatch.setattr(BreakerActor, "_handle", handle)
        fleet.system.breakers.record(PAIR, Signal.FAILURE, "backend_broke", 0)
        await trio.sleep(1.0)
        assert crashes == [1]
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.SHUT
        for _ in range(4):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-server"] == "b"


async def test_recorder_lags_or_crashes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """The data path never waits for history; what overflows is counted as dropped."""
    expected_errors.append("actor request log crashed")
    async with open_fleet("a") as fleet:
        recorder = fleet.system.statistics.request_log
        original = recorder.digest
        calls = [0]

        def digest(record: Any) -> None:
            calls[0] += 1
            if calls[0] <= 2:
                raise RuntimeError("injected")
            original(record)

        monkeypatch.setattr(recorder, "digest", digest)
        for _ in range(4):
            await fleet.system.exchange(chat(), client := Client())
            assert client.complete
        await trio.sleep(1.0)
        assert recorder.seen == 2
        record = recent(recorder)[0]
        for _ in range(5000):
            recorder.append(record)
        assert recorder.dropped > 0


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
