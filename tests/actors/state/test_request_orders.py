"""What operators order holds at once: bans, lifted bans, pauses, cancelled requests."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.mailbox import Promise
from actors.kit.reply import heard
from actors.state.messages import BanPair
from fleet.common.errors import Conflict, FleetError, NoServer, QueueCancelled, RequestCancelled, ServerNotFound
from fleet.common.ids import ModelName, Pair, RequestId, ServerId
from fleet.protocol.call import Call
from fleet.scheduling.bans import BanKind, Bans
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet
from tests.kit.suite.records import recent

A, B = ServerId("a"), ServerId("b")
M, N = ModelName("m:latest"), ModelName("n:latest")


async def ban(fleet: Fleet, server: ServerId = A, model: ModelName = M, until: float = math.inf) -> None:
    await heard(fleet.system.orders.ban(Pair(server, model), "smells", until, "alice"))


async def server_of(fleet: Fleet, call: Call) -> str:
    await fleet.system.exchange(call, client := Client())
    return client.headers["x-fleet-server"]


# ---- bans


async def test_a_banned_pair_gets_nothing_from_that_moment_on(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        await ban(fleet)
        assert {await server_of(fleet, chat()) for _ in range(8)} == {"b"}
        assert "a" in {await server_of(fleet, chat("n")) for _ in range(30)}
        (kept,) = fleet.system.scheduler.bans.list(trio.current_time())
        assert (kept.pair, kept.kind, kept.reason, kept.by) == (Pair(A, M), BanKind.BAN, "smells", "alice")


async def test_what_runs_when_a_pair_is_banned_goes_on(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=50), client := Client())
        await client.first.wait()
        await ban(fleet)
        await trio.sleep(10.0)
        assert client.complete


Lifting = Callable[[Fleet], Awaitable[object]]
LIFTINGS: list[Lifting] = [
    lambda fleet: heard(fleet.system.orders.lift()),
    lambda fleet: heard(fleet.system.orders.lift(A)),
    lambda fleet: heard(fleet.system.orders.lift(model=M)),
    lambda fleet: heard(fleet.system.orders.lift(A, M)),
    lambda fleet: heard(fleet.system.orders.lift(A, M, BanKind.BAN)),
]


@pytest.mark.parametrize("lifting", LIFTINGS, ids=["all", "server", "model", "pair", "kind"])
async def test_a_lifted_pair_serves_at_once_who_waits_for_it(lifting: Lifting, autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        await fleet.system.exchange(chat(), Client())
        await ban(fleet)
        nursery.start_soon(fleet.system.exchange, chat(), client := Client())
        await trio.sleep(1.0)
        assert not fleet.cell("a").leases
        await lifting(fleet)
        assert len(fleet.cell("a").leases) == 1
        await client.first.wait()


async def test_a_ban_for_a_time_ends_by_itself_and_serves_who_waits(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        await fleet.system.exchange(chat(), Client())
        began = trio.current_time()
        await ban(fleet, until=began + 1.5)
        await fleet.system.exchange(chat(tokens=1), client := Client())
        assert client.complete
        assert 1.5 <= trio.current_time() - began < 2.0
        assert not len(fleet.system.scheduler.bans)


async def test_lifting_tells_what_was_lifted_and_only_of_its_kind(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        orders, now = fleet.system.orders, trio.current_time()
        fleet.system.scheduler.mailbox.cast(BanPair(Pair(A, M), "slow", now + 60.0, cooldown=True))
        await ban(fleet)
        await ban(fleet, B)
        (gone,) = await heard(orders.lift(A, kind=BanKind.COOLDOWN))
        assert (gone.pair, gone.kind, gone.by) == (Pair(A, M), BanKind.COOLDOWN, "")
        assert fleet.cell("a").state.barred == {M}
        assert {gone.pair.server for gone in await heard(orders.lift(model=M))} == {A, B}
        assert await heard(orders.lift()) == ()
        assert not fleet.cell("a").state.barred


async def test_a_ban_is_meant_for_those_too_who_ask_for_the_server_by_name(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=500), busy := Client())
        await busy.first.wait()
        refused: list[str] = []

        async def wait_for(model: str) -> None:
            refused.append(await error_of(fleet, chat(model, pinned="a", tokens=1)))

        nursery.start_soon(wait_for, "m")
        nursery.start_soon(wait_for, "n")
        await wait_all_tasks_blocked()
        await ban(fleet)
        await wait_all_tasks_blocked()
        assert refused == ["NoServer"]
        with pytest.raises(NoServer) as caught:
            await fleet.system.exchange(chat(pinned="a"), Client())
        assert (caught.value.message, caught.value.details) == ("server 'a' is banned from model 'm:latest'", "smells")
        await heard(fleet.system.orders.lift())
        await wait_for("m")
        assert refused == ["NoServer", "", ""]


async def test_a_cooldown_is_no_ban_to_those_who_ask_for_the_server_by_name(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet.system.scheduler.mailbox.cast(BanPair(Pair(A, M), "slow", math.inf, cooldown=True))
        assert await server_of(fleet, chat(pinned="a")) == "a"
        assert await server_of(fleet, chat()) == "b"


async def test_a_banned_server_may_still_be_asked_what_it_knows_of_the_model(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        await ban(fleet)
        call = replace(chat(pinned="a"), target="/api/show", endpoint="/api/show", runs=False, body=b'{"model":"m"}')
        await fleet.system.exchange(call, client := Client())
        assert client.status == 200


async def test_a_ban_whose_time_is_over_is_not_told_as_lifted(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        now = trio.current_time()
        fleet.system.scheduler.bans.add(Pair(A, M), "over", now - 5.0, until=now)
        assert await heard(fleet.system.orders.lift()) == ()
        assert not len(fleet.system.scheduler.bans)


async def test_there_is_room_for_so_many_bans_and_who_asks_for_more_is_told(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet.system.scheduler.bans.limit = 2
        await ban(fleet, A, M)
        await ban(fleet, A, N)
        with pytest.raises(Conflict, match="no room"):
            await ban(fleet, B, M)
        assert not fleet.cell("b").state.barred
        await ban(fleet, A, M)
        assert len(fleet.system.scheduler.bans) == 2


async def test_nobody_bans_a_server_that_is_not_there(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        with pytest.raises(ServerNotFound):
            await ban(fleet, ServerId("nobody"))
        assert not len(fleet.system.scheduler.bans)


async def test_lifting_thousands_looks_at_each_server_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_fleet("a", "b") as fleet:
        bans = fleet.system.scheduler.bans
        await ban(fleet, A)
        await ban(fleet, B)
        for number in range(3_000):
            for server in (A, B):
                bans.add(Pair(server, ModelName(f"x{number}:latest")), "test", 0.0, kind=BanKind.COOLDOWN)
        looked: list[ServerId] = []

        def barred(self: Bans, server: ServerId, now: float) -> set[ModelName]:
            looked.append(server)
            return set()

        monkeypatch.setattr(Bans, "barred", barred)
        gone = await heard(fleet.system.orders.lift(kind=BanKind.COOLDOWN))
        assert len(gone) == 6_000
        assert sorted(looked) == [A, B]


# ---- pausing


async def test_a_pause_says_since_when_and_by_whom_and_a_second_one_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        orders = fleet.system.orders
        assert (fleet.system.queries.queue_view().since, fleet.system.queries.queue_view().by) == (None, "")
        await heard(orders.pause(True, "alice"))
        first = fleet.system.queries.queue_view()
        await trio.sleep(10.0)
        await heard(orders.pause(True, "bob"))
        again = fleet.system.queries.queue_view()
        assert (first.paused, first.by, again.by) == (True, "alice", "alice")
        assert again.since == pytest.approx(first.since, abs=11.0)  # the wall clock stands still here
        assert fleet.system.scheduler.memory.paused_since == trio.current_time() - 10.0
        await heard(orders.pause(False, "bob"))
        after = fleet.system.queries.queue_view()
        assert (after.paused, after.by) == (False, "bob")
        assert fleet.system.scheduler.memory.paused_since == trio.current_time()


async def test_nobody_is_served_while_paused_and_everybody_at_once_afterwards(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=4) as fleet, trio.open_nursery() as nursery:
        await heard(fleet.system.orders.pause(True))
        for _ in range(3):
            nursery.start_soon(fleet.system.exchange, chat(), Client())
        await trio.sleep(30.0)
        assert (fleet.system.queries.queue_view().waiting, fleet.system.in_flight) == (3, 0)
        await heard(fleet.system.orders.pause(False))
        assert (fleet.system.queries.queue_view().waiting, fleet.system.in_flight) == (0, 3)


# ---- cancelling


async def failed(fleet: Fleet, call: Call, into: list[FleetError], client: Client | None = None) -> None:
    try:
        await fleet.system.exchange(call, client or Client())
    except FleetError as error:
        into.append(error)


def called(request_id: str, call: Call) -> Call:
    call.request_id = RequestId(request_id)
    return call


async def test_all_who_wait_under_an_id_are_cancelled_and_nobody_else(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, called("mine", chat(tokens=100)), running := Client())
        await running.first.wait()
        cancelled: list[FleetError] = []
        for _ in range(2):
            nursery.start_soon(failed, fleet, called("mine", chat()), cancelled)
        nursery.start_soon(fleet.system.exchange, called("other", chat()), other := Client())
        await wait_all_tasks_blocked()
        assert fleet.system.orders.cancel_waiting("nobody") == 0
        assert fleet.system.orders.cancel_waiting("mine") == 2
        assert fleet.system.orders.cancel_waiting("mine") == 0
        await wait_all_tasks_blocked()
        assert [type(error) for error in cancelled] == [QueueCancelled, QueueCancelled]
        assert [error.status for error in cancelled] == [503, 503]
        assert [item.request_id for item in fleet.system.queries.queue_view().items] == ["other"]
        await trio.sleep(20.0)
        assert running.complete
        assert other.complete
        assert fleet.system.breakers.describe() == []
        outcomes = [record.outcome for record in recent(fleet.system.statistics.request_log)]
        assert outcomes == ["queue_cancelled", "queue_cancelled", "completed", "completed"]
        fleet.assert_nothing_left()


async def test_whoever_is_turned_away_or_cancelled_gives_up_the_place_in_the_queue(autojump_clock: MockClock) -> None:
    async with open_fleet("a", queue={"max_size": 1}) as fleet, trio.open_nursery() as nursery:
        ended: list[FleetError] = []
        await heard(fleet.system.orders.pause(True))
        nursery.start_soon(failed, fleet, chat(pinned="a"), ended)
        await wait_all_tasks_blocked()
        await ban(fleet)
        nursery.start_soon(failed, fleet, called("mine", chat("n")), ended)
        await wait_all_tasks_blocked()
        fleet.system.orders.cancel_waiting("mine")
        nursery.start_soon(failed, fleet, chat("n"), ended)
        await wait_all_tasks_blocked()
        assert [type(error) for error in ended] == [NoServer, QueueCancelled]
        assert fleet.system.queries.queue_view().waiting == 1
        nursery.cancel_scope.cancel()


async def test_a_running_stream_that_is_cancelled_ends_with_an_error_record(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, called("mine", chat(tokens=500)), client := Client())
        await client.first.wait()
        assert fleet.system.orders.cancel_running("nobody") == 0
        assert fleet.system.orders.cancel_running("mine") == 1
        assert fleet.system.in_flight == 0
        await trio.sleep(1.0)
        assert client.finished
        assert "cancelled" in client.records[-1]["error"]
        assert fleet.system.breakers.describe() == []
        assert recent(fleet.system.statistics.request_log)[-1].outcome == "request_cancelled"
        fleet.assert_nothing_left()


async def test_a_request_that_is_cancelled_before_its_answer_is_not_tried_elsewhere(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as nursery:
        cancelled: list[FleetError] = []
        nursery.start_soon(failed, fleet, called("mine", chat(stream=False, tokens=500)), cancelled)
        await trio.sleep(3.0)
        assert fleet.system.orders.cancel_running("mine") == 1
        await wait_all_tasks_blocked()
        assert [type(error) for error in cancelled] == [RequestCancelled]
        assert sum(len(fleet[server].host.seen("/api/chat")) for server in "ab") == 1
        assert fleet.system.breakers.describe() == []
        assert recent(fleet.system.statistics.request_log)[-1].outcome == "request_cancelled"
        fleet.assert_nothing_left()


@pytest.mark.parametrize("phase", ["waits", "runs"])
async def test_a_retry_that_is_cancelled_says_so_and_not_what_the_first_server_said(
    phase: str, autojump_clock: MockClock
) -> None:
    async with open_fleet("a", "b", slots=1) as fleet, trio.open_nursery() as nursery:
        fleet["a"].host.faults.set("status:503:busy")
        cancelled: list[FleetError] = []
        if phase == "waits":
            nursery.start_soon(fleet.system.exchange, chat(tokens=5000, pinned="b"), Client())
            await wait_all_tasks_blocked()
        else:
            fleet["b"].host.faults.set("hang-before-headers")
            await ban(fleet, B)
        nursery.start_soon(failed, fleet, called("mine", chat()), cancelled)
        while not fleet.cell("a").leases:
            await trio.lowlevel.checkpoint()
        await heard(fleet.system.orders.lift())
        await trio.sleep(1.0)
        orders = fleet.system.orders
        assert (orders.cancel_waiting if phase == "waits" else orders.cancel_running)("mine") == 1
        await wait_all_tasks_blocked()
        assert [type(error) for error in cancelled] == [QueueCancelled if phase == "waits" else RequestCancelled]
        assert len(fleet["a"].host.seen("/api/chat")) == 1
        assert recent(fleet.system.statistics.request_log)[-1].outcome in ("queue_cancelled", "request_cancelled")
        nursery.cancel_scope.cancel()


async def test_a_cancelled_request_makes_room_for_who_waits(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, called("long", chat(tokens=5000)), long := Client())
        await long.first.wait()
        nursery.start_soon(fleet.system.exchange, called("short", chat(tokens=1)), short := Client())
        await wait_all_tasks_blocked()
        fleet.system.orders.cancel_running("long")
        assert [lease.request_id for lease in fleet.cell("a").leases.values()] == ["short"]
        await trio.sleep(5.0)
        assert short.complete


async def test_an_order_that_nobody_carries_out_is_said_to_be_open(autojump_clock: MockClock) -> None:
    with pytest.raises(FleetError, match="no answer from the dispatcher"):
        await heard(Promise[None]())


# ---- what is shown


async def test_the_queue_shows_what_is_asked_for_and_counts_all(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        await heard(fleet.system.orders.pause(True))
        for priority in (0, 5, 0, -5, 5):
            nursery.start_soon(fleet.system.exchange, called(f"p{priority}", chat(priority=priority)), Client())
            await wait_all_tasks_blocked()
        view = fleet.system.queries.queue_view(3)
        assert (view.waiting, view.by_priority) == (5, {0: 2, 5: 2, -5: 1})
        assert [item.request_id for item in view.items] == ["p5", "p5", "p0"]
        first = view.items[0]
        assert first.endpoint == "/api/chat"
        assert first.deadline - first.enqueued == pytest.approx(300.0)
        assert fleet.system.queries.queue_view(0).items == ()
        nursery.cancel_scope.cancel()


async def test_a_cooldown_that_makes_room_for_a_ban_serves_who_waits_for_it(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", health={"interval": 600}) as fleet, trio.open_nursery() as nursery:
        fleet.system.scheduler.bans.limit = 2
        for server in (A, B):
            fleet.system.scheduler.mailbox.cast(
                BanPair(Pair(server, M), "slow", trio.current_time() + 500, cooldown=True)
            )
        nursery.start_soon(fleet.system.exchange, chat(), client := Client())
        await wait_all_tasks_blocked()
        assert not client.started
        await ban(fleet, B, N)
        await trio.sleep(5.0)
        assert client.complete
        assert (fleet.cell("a").state.barred, fleet.cell("b").state.barred) == (set(), {M, N})
