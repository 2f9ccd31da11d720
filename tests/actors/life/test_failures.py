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
