"""Servers come, change and go while requests run."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.storage.journal import Document, Journal
from fleet.common.errors import Conflict, NoAnswer, ServerNotFound
from fleet.common.ids import ServerId
from fleet.config import ServerSpec
from fleet.scheduling.server_state import Admin, Health, Order
from fleet.simulator import Profile
from tests.kit.fleets.backends import FakeBackend
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

SLOW = Profile(load_seconds=0.0, slots=8, tokens_per_second=10.0)
A, B = ServerId("a"), ServerId("b")


def spec(fleet: Fleet, server: str) -> ServerSpec:
    found: ServerSpec = fleet.cell(server).state.spec
    return found


def changed(fleet: Fleet, server: str, **update: Any) -> None:
    fleet.system.change_server(spec(fleet, server).model_copy(update=update))


async def test_more_slots_serve_those_who_wait_at_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async with open_fleet(("a", SLOW), slots=1) as fleet:
        clients = [Client() for _ in range(3)]
        for client in clients:
            nursery.start_soon(fleet.system.exchange, chat(tokens=100), client)
        await wait_all_tasks_blocked()
        assert fleet.system.in_flight == 1
        changed(fleet, "a", max_concurrency=3)
        await wait_all_tasks_blocked()
        assert fleet.system.in_flight == 3
        while not all(client.complete for client in clients):
            await trio.sleep(0.1)


async def test_fewer_slots_close_nothing_and_hold_for_the_next(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_fleet(("a", SLOW), slots=3) as fleet:
        clients = [Client() for _ in range(3)]
        for client in clients:
            nursery.start_soon(fleet.system.exchange, chat(tokens=20), client)
        await wait_all_tasks_blocked()
        changed(fleet, "a", max_concurrency=1)
        late = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=20), late)
        await wait_all_tasks_blocked()
        assert fleet.system.in_flight == 3
        while not late.started:
            await trio.sleep(0.1)
        assert fleet.system.in_flight <= 1
        assert all(client.complete for client in clients)


async def test_another_url_is_another_machine_and_the_running_request_ends_on_the_old_one(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_fleet(("a", SLOW)) as fleet:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=50), client)
        await client.first.wait()
        old = fleet["a"]
        machines = cast(dict[str, FakeBackend], fleet.memory.backends)
        machines["a"] = FakeBackend(nursery, "other:latest:1GB", SLOW, id="a2")
        changed(fleet, "a", url="http://elsewhere.internal:11434")
        state = fleet.cell("a").state
        assert (state.health, state.models, state.version) == (Health.UNKNOWN, {}, None)
        await fleet.system.probe(A, 10.0)
        assert list(state.models) == ["other:latest"]
        await fleet.system.exchange(chat("other", tokens=1), Client())
        while not client.finished:
            await trio.sleep(0.1)
        assert client.complete
        assert len(old.host.seen("/api/chat")) == 1
        fleet.assert_nothing_left()


async def test_a_server_listed_again_while_it_drains_stays_and_drops_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_fleet(("a", SLOW), "b") as fleet:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=50, pinned="a"), client)
        await client.first.wait()
        both = fleet.system.config.servers
        fleet.system.membership.follow(both[1:])
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.admin is Admin.DRAINING
        assert [each.id for each in fleet.system.config.servers] == [B]
        fleet.system.membership.follow(both)
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.admin is Admin.ACTIVE
        await trio.sleep(60.0)
        assert client.complete
        assert set(fleet.system.servers) == {A, B}
        assert await error_of(fleet, chat(tokens=1, pinned="a")) == ""


async def test_a_server_no_longer_listed_ends_its_requests_first(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_fleet(("a", SLOW), "b") as fleet:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=50, pinned="a"), client)
        await client.first.wait()
        fleet.system.membership.follow(fleet.system.config.servers[1:])
        await wait_all_tasks_blocked()
        assert await error_of(fleet, chat(tokens=1, pinned="a")) == "NoServer"
        while A in fleet.system.servers:
            await trio.sleep(0.1)
        assert client.complete
        with pytest.raises(ServerNotFound):
            fleet.system.cell(A)


async def test_the_builder_cannot_be_removed(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", placement={"builder": "a"}) as fleet:
        with pytest.raises(Conflict, match=r"placement\.builder"):
            await fleet.system.remove_server(A)
        assert A in fleet.system.servers


async def test_orders_to_a_server_on_its_way_out_are_refused(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async with open_fleet(("a", SLOW)) as fleet:
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=50), client)
        await client.first.wait()
        nursery.start_soon(fleet.system.remove_server, A)
        await wait_all_tasks_blocked()
        with pytest.raises(Conflict, match="being removed"):
            await fleet.system.ordered(A, Order.ACTIVATE, "no", "me")
        with pytest.raises(Conflict, match="being removed"):
            changed(fleet, "a", max_concurrency=2)
        while not client.finished:
            await trio.sleep(0.1)


async def test_an_order_to_a_server_whose_actor_is_down_is_not_called_done(
    autojump_clock: MockClock, expected_errors: list[str]
) -> None:
    """It was: after a second, whether or not anybody had obeyed."""
    expected_errors.extend(["actor server a crashed", "given up"])
    async with open_fleet("a") as fleet:
        for _ in range(6):
            fleet.cell("a").mailbox.cast(object())
        with pytest.raises(NoAnswer, match="no answer from server 'a'"):
            await fleet.system.ordered(A, Order.DRAIN, "quiet please", "ben")
        assert fleet.cell("a").state.admin is Admin.ACTIVE
        while fleet.cell("a").state.admin is Admin.ACTIVE:  # the order stands
            await trio.sleep(1.0)
        assert fleet.cell("a").state.by == "ben"


async def test_a_removal_that_did_not_happen_is_not_called_done(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_fleet(("a", SLOW), "b") as fleet:
        nursery.start_soon(fleet.system.exchange, chat(tokens=50, pinned="a"), client := Client())
        await client.first.wait()
        specs = fleet.system.config.servers
        async with trio.open_nursery() as waiting:

            async def remove() -> None:
                with pytest.raises(Conflict, match="stays"):
                    await fleet.system.remove_server(A)

            waiting.start_soon(remove)
            await wait_all_tasks_blocked()
            fleet.system.membership.follow(specs)
        assert A in fleet.system.servers
        while not client.finished:
            await trio.sleep(0.1)
        assert client.complete


async def test_a_maintenance_with_an_end_ends_by_itself(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        until = trio.current_time() + 100.0
        await fleet.system.ordered(A, Order.MAINTAIN, "new disk", "ann", until)
        state = fleet.cell("a").state
        assert (state.admin, state.admin_why, state.by, state.until) == (Admin.MAINTENANCE, "new disk", "ann", until)
        assert await error_of(fleet, chat()) == "NoServer"
        await trio.sleep_until(until - 5)
        assert state.admin is Admin.MAINTENANCE
        await trio.sleep_until(until + 0.1)
        assert (state.admin, state.until) == (Admin.ACTIVE, math.inf)
        assert await error_of(fleet, chat()) == ""


async def test_a_maintenance_can_be_prolonged(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        began = trio.current_time()
        await fleet.system.ordered(A, Order.MAINTAIN, "disk", "ann", began + 10)
        await trio.sleep(5)
        await fleet.system.ordered(A, Order.MAINTAIN, "fan too", "ben", began + 100)
        state = fleet.cell("a").state
        await trio.sleep_until(began + 50)
        assert (state.admin, state.admin_why, state.by) == (Admin.MAINTENANCE, "fan too", "ben")
        assert state.admin_since == pytest.approx(began, abs=0.5)


def stored(fleet: Fleet) -> dict[str, dict[str, Document]]:
    """What a store would hold."""
    journal = fleet.system.journal
    held: dict[str, dict[str, Document]] = {}
    for kind, key in journal.touched:
        if (doc := journal.sources[kind](key)) is not None:
            held.setdefault(kind, {})[key] = doc
    return held


async def test_orders_and_changes_survive_a_restart(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", "c") as fleet:
        fleet.system.journal.attached = True
        await fleet.system.ordered(A, Order.MAINTAIN, "new disk", "ann", trio.current_time() + 1000)
        await fleet.system.ordered(B, Order.DRAIN, "quiet please", "ben")
        changed(fleet, "b", max_concurrency=9)
        await fleet.system.remove_server(ServerId("c"))
        kept = stored(fleet)
    assert set(kept["admin"]) == {"a", "b"}
    async with open_fleet("a", "b", "c", journal=Journal(kept)) as fleet:
        assert set(fleet.system.servers) == {A, B}
        assert spec(fleet, "b").max_concurrency == 9
        a, b = fleet.cell("a").state, fleet.cell("b").state
        assert (a.admin, a.admin_why, a.by) == (Admin.MAINTENANCE, "new disk", "ann")
        assert a.until - trio.current_time() == pytest.approx(1000, abs=30)
        assert (b.admin, b.by) == (Admin.DRAINED, "ben")
        await fleet.system.ordered(B, Order.ACTIVATE, "go", "ben")
        assert await error_of(fleet, chat()) == ""
        assert (fleet.system.journal.sources["admin"])("b") is None


async def test_what_was_kept_and_cannot_be_read_is_told_and_left_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    kept: dict[str, dict[str, Document]] = {
        "admin": {"a": {"admin": "upside down"}},
        "server": {"z": {"spec": {"id": "z"}, "base": None}},
    }
    async with open_fleet("a", journal=Journal(kept)) as fleet:
        assert set(fleet.system.servers) == {A}
        assert fleet.cell("a").state.admin is Admin.ACTIVE
    assert "what was kept of server 'z' cannot be read" in caplog.text
    assert "what was kept of the state of a server cannot be read" in caplog.text
