"""Things that went wrong once with revoking and limits, each named after what went wrong."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.servers.server_actor import ServerActor
from actors.state.lease import Lease
from actors.state.servers import ServerCell
from actors.upstream.pool import BackendAddress, Pool, UpstreamRequest
from fleet.breakers.outcomes import Revoked
from fleet.common.errors import BackendError
from fleet.common.ids import ServerId
from fleet.protocol.call import ClientGone, Headers
from tests.actors.upstream.transport_kit import OK
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet
from tests.kit.fleets.memory import MemoryEnd, memory_pair
from tests.kit.suite.records import recent

A = ServerId("a")


def only_lease(fleet: Fleet) -> Lease:
    (lease,) = fleet.cell("a").leases.values()
    assert isinstance(lease, Lease)
    return lease


# ---- limits


async def test_an_unstreamed_generation_on_a_server_that_hangs_was_never_blamed(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"total": 300.0, "first_byte": 30.0}) as fleet:
        fleet["a"].host.faults.set("hang-before-headers")
        began = trio.current_time()
        assert await error_of(fleet, chat(stream=False)) == "TotalTimeout"
        assert trio.current_time() - began == 300.0
        await wait_all_tasks_blocked()
        (view,) = fleet.system.breakers.describe()
        assert view.failure_count == 1
        assert recent(fleet.system.statistics.request_log)[-1].outcome == "total_timeout"
        fleet.assert_nothing_left()


async def test_a_server_is_not_blamed_for_a_deadline_that_the_queue_has_used_up(autojump_clock: MockClock) -> None:
    limits = {"total": 40.0, "first_byte": 30.0}
    async with open_fleet("a", slots=1, timeouts=limits) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=1500), first := Client())
        await first.first.wait()
        fleet["a"].host.faults.set("hang-before-headers")
        assert await error_of(fleet, chat(stream=False)) == "TotalTimeout"
        assert first.complete
        assert fleet.system.breakers.describe() == []


async def test_limits_were_kept_up_to_a_second_late(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"total": 4.1}) as fleet:
        fleet["a"].host.faults.set("hang-before-headers")
        began = trio.current_time()
        assert await error_of(fleet, chat()) == "TotalTimeout"
        assert trio.current_time() - began == pytest.approx(4.1)


async def test_nobody_kept_limits_while_a_crash_looping_branch_rested(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors += ["actor server a crashed", "server is given up"]

    def recover(actor: ServerActor, now: float) -> None:
        raise RuntimeError("injected")

    async with open_fleet("a", timeouts={"total": 10.0, "idle": 5.0}) as fleet, trio.open_nursery() as nursery:
        fleet["a"].host.faults.set("stall-mid-stream:1")
        nursery.start_soon(fleet.system.exchange, chat(tokens=400), client := Client())
        await client.first.wait()
        monkeypatch.setattr(ServerActor, "_recover", recover)
        monkeypatch.setattr(ServerActor, "_digest", recover)
        await fleet.system.probe(A, 1.0)
        with trio.fail_after(8.0):
            while fleet.system.in_flight:
                await trio.sleep(0.1)
        assert "error" in client.records[-1]
        fleet.assert_nothing_left()


async def test_a_resting_branch_that_cannot_look_takes_nobody_along(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors += ["actor server a crashed", "server is given up", "open requests cannot be looked at"]

    def boom(cell: ServerCell) -> None:
        if cell.state.id == A:
            raise RuntimeError("injected")

    async with open_fleet("a", "b") as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=1000, pinned="a"), client := Client())
        await client.first.wait()
        with monkeypatch.context() as broken:
            broken.setattr("actors.servers.server_tree.check", lambda config, breakers, cell, now: boom(cell))
            for name in ("_digest", "_recover"):
                broken.setattr(ServerActor, name, lambda actor, *_: boom(actor._cell))
            await fleet.system.probe(A, 1.0)
            await trio.sleep(10.0)
        assert await error_of(fleet, chat()) == ""
        await trio.sleep(60.0)
        assert client.complete
        fleet.assert_nothing_left()


class Slow(Client):
    """Takes not even the head."""

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._reading.wait()
        if self.gone:
            raise ClientGone


@pytest.mark.parametrize("refused", [False, True])
async def test_a_client_that_took_not_even_the_head_was_taken_for_a_silent_server(
    autojump_clock: MockClock, refused: bool
) -> None:
    async with open_fleet("a", timeouts={"write": 8.0, "idle": 4.0}) as fleet:
        if refused:
            fleet["a"].host.faults.set("status:400:no")
        client = Slow()
        client.stop_reading()
        assert await error_of(fleet, chat(tokens=1000), client) == ""
        assert client.aborted
        assert recent(fleet.system.statistics.request_log)[-1].outcome == "client_stalled"
        assert fleet.system.breakers.describe() == []
        fleet.assert_nothing_left()


# ---- revoked at a bad moment


class Holder:
    """What `Lease.revoke` does to the way to the backend."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.given_up = False

    def revoke(self) -> None:
        self.given_up = True
        if self.connection is not None:
            self.connection.abort()


class Backend:
    """Answers the first request of its first connection, then never again; `slow`: dials end uncancellably."""

    def __init__(self, nursery: trio.Nursery, *, slow: bool) -> None:
        self.dials = 0
        self._nursery = nursery
        self._slow = slow

    async def dial(self) -> MemoryEnd:
        self.dials += 1
        await trio.lowlevel.checkpoint()
        near, far = memory_pair()
        self._nursery.start_soon(self._serve, far, self.dials)
        if self._slow:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return near

    async def _serve(self, far: MemoryEnd, number: int) -> None:
        await far.receive_some()
        if number > 1:
            await trio.sleep_forever()
        await far.send_all(OK)
        await far.receive_some()
        far.close()


async def drained(pool: Pool, holder: Holder | None = None) -> None:
    response = await pool.open(UpstreamRequest("POST", "/", [], b"x"), connect_timeout=1, holder=holder)
    while await response.receive():
        pass
    response.release()


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("turns", range(24))
async def test_a_revocation_during_a_redial_was_missed(autojump_clock: MockClock, turns: int, slow: bool) -> None:
    async with trio.open_nursery() as nursery:
        backend, holder = Backend(nursery, slow=slow), Holder()
        pool = Pool(BackendAddress.parse("http://h:1"), dial=backend.dial)
        await drained(pool)
        assert pool.idle == 1

        async def ask() -> None:
            with trio.fail_after(0.9), pytest.raises(BackendError):
                await drained(pool, holder)

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            holder.revoke()
        assert pool.open_count == 0
        nursery.cancel_scope.cancel()


async def test_a_revocation_at_the_end_of_dialling_was_missed(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        go, pool = trio.Event(), fleet.memory.pools["a"]
        original = pool._dial_with
        assert original is not None

        async def dial() -> trio.abc.Stream:
            stream = await original()
            await go.wait()
            return stream

        pool._dial_with = dial
        nursery.start_soon(error_of, fleet, chat(tokens=100_000), client := Client())
        await wait_all_tasks_blocked()
        go.set()
        only_lease(fleet).revoke(Revoked("test"))
        await wait_all_tasks_blocked()
        assert client.body == b""
        fleet.assert_nothing_left()


async def test_a_lease_that_was_revoked_before_its_exchange_ran_was_used(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(error_of, fleet, chat(tokens=100_000))
        await wait_all_tasks_blocked()
        nursery.start_soon(error_of, fleet, chat(tokens=100_000), client := Client())
        await wait_all_tasks_blocked()
        first = only_lease(fleet)
        first.revoke(Revoked("one"))
        second = only_lease(fleet)
        assert second is not first
        second.revoke(Revoked("two"))
        await trio.sleep(30.0)
        assert client.body == b""
        fleet.assert_nothing_left()


async def test_the_end_of_the_fleet_gave_the_slots_it_freed_to_those_who_waited(autojump_clock: MockClock) -> None:
    ends: list[str] = []
    clients = [Client(), Client()]

    async def run(fleet: Fleet, client: Client) -> None:
        ends.append(await error_of(fleet, chat(tokens=1000), client))

    async with trio.open_nursery() as outer:
        async with open_fleet("a", slots=1) as fleet:
            for client in clients:
                outer.start_soon(run, fleet, client)
                await wait_all_tasks_blocked()
        with trio.fail_after(5.0):
            while len(ends) < 2:
                await trio.sleep(0.1)
    assert sorted(ends) == ["", "ShuttingDown"] or ends == ["ShuttingDown", "ShuttingDown"]
    assert clients[1].body == b""
    assert fleet.system.in_flight == 0
