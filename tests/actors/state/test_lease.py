"""A lease is closed once, and wholly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.reply import heard
from actors.state.lease import Lease, WaitingFor
from fleet.breakers.outcomes import Failed
from fleet.breakers.values import BreakerState
from fleet.common.errors import IdleTimeout, Phase
from fleet.common.ids import ModelName, Pair
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

M = ModelName("m:latest")
STALLED = Failed(IdleTimeout("it stood still", Phase.BODY))
ENDLESS = Profile(load_seconds=0.0, slots=8, tokens_per_second=1.0)


class Deaf:
    """Breakers that cannot be told anything."""

    def record(self, *_: object, **__: object) -> None:
        raise RuntimeError("injected")

    alive = record


def told(fleet: Fleet, breakers: Deaf) -> None:
    """Let these hear of outcomes in place of the fleet's own."""
    vars(fleet.system.breakers).update(record=breakers.record, alive=breakers.alive)


def no_breakers(fleet: Fleet) -> None:
    told(fleet, Deaf())


def no_statistics(fleet: Fleet) -> None:
    fleet.cell("a").state.stats[M] = object()


async def begun(fleet: Fleet, nursery: trio.Nursery, number: int) -> list[Client]:
    """So many requests, one after the other; as many as there are slots run, the others wait."""
    clients = [Client() for _ in range(number)]
    for client in clients:
        nursery.start_soon(fleet.system.exchange, chat(tokens=100), client)
        await wait_all_tasks_blocked()
    return clients


def leases(fleet: Fleet) -> list[Any]:
    return list(fleet.cell("a").leases.values())


@pytest.mark.parametrize("broken", [no_breakers, no_statistics])
async def test_the_slot_goes_to_who_waits_though_what_the_request_taught_cannot_be_noted(
    autojump_clock: MockClock, expected_errors: list[str], broken: Callable[[Fleet], None]
) -> None:
    """It went to nobody until the dispatcher looked around, seconds later; the error was raised at whoever closed."""
    expected_errors.append("has taught is lost")
    async with open_fleet(("a", ENDLESS), slots=1) as fleet, trio.open_nursery() as nursery:
        first, second = await begun(fleet, nursery, 2)
        await first.first.wait()
        (lease,) = leases(fleet)
        broken(fleet)
        lease.revoke(STALLED)
        (after,) = leases(fleet)  # in the same turn
        assert after.number != lease.number
        await second.first.wait()
        nursery.cancel_scope.cancel()


async def test_all_leases_are_revoked_though_what_the_first_taught_cannot_be_noted(
    autojump_clock: MockClock, expected_errors: list[str]
) -> None:
    expected_errors.append("has taught is lost")
    async with open_fleet(("a", ENDLESS), slots=4) as fleet, trio.open_nursery() as nursery:
        for client in await begun(fleet, nursery, 3):
            await client.first.wait()
        held: list[Lease] = leases(fleet)
        no_statistics(fleet)
        for lease in held:
            lease.revoke(STALLED)
        assert fleet.system.in_flight == 0
        assert not leases(fleet)


async def test_the_breaker_hears_of_a_permit_though_the_statistics_cannot_be_kept(
    autojump_clock: MockClock, expected_errors: list[str]
) -> None:
    expected_errors.append("has taught is lost")
    heard: list[object] = []

    class Listening(Deaf):
        def record(self, *told: object, **_: object) -> None:
            heard.append(told[0])

    async with open_fleet(("a", ENDLESS)) as fleet, trio.open_nursery() as nursery:
        (client,) = await begun(fleet, nursery, 1)
        await client.first.wait()
        (lease,) = leases(fleet)
        no_statistics(fleet)
        told(fleet, Listening())
        lease.revoke(STALLED)
        assert heard == [lease.pair]


async def test_a_permit_comes_back_though_its_breaker_cannot_be_told(
    autojump_clock: MockClock, expected_errors: list[str]
) -> None:
    """It was out for good: a breaker with few permits then tried nobody any more."""
    expected_errors.append("has taught is lost")
    async with open_fleet(("a", ENDLESS)) as fleet, trio.open_nursery() as nursery:
        pair = Pair(fleet.cell("a").state.id, M)
        forced = fleet.system.breakers.force(pair, BreakerState.HALF_OPEN, "test")
        assert forced is not None
        await heard(forced)
        gate = fleet.cell("a").state.gates[M]
        (client,) = await begun(fleet, nursery, 1)
        await client.first.wait()
        (lease,) = leases(fleet)
        assert gate.trials_out == 1
        no_breakers(fleet)
        lease.revoke(STALLED)
        assert gate.trials_out == 0
        nursery.cancel_scope.cancel()


async def test_all_leases_are_cut_off_though_one_connection_cannot_be(
    autojump_clock: MockClock, expected_errors: list[str]
) -> None:
    """The error came out of the loop that revoked them: the others went on, on a server that was to be left."""
    expected_errors.append("could not be cut off")
    cut: list[int] = []

    class Stuck:
        def abort(self) -> None:
            raise OSError("injected")

    class Answer:
        def __init__(self, number: int) -> None:
            self._number = number

        def cut(self) -> None:
            cut.append(self._number)

    async with open_fleet(("a", ENDLESS), slots=4) as fleet, trio.open_nursery() as nursery:
        for client in await begun(fleet, nursery, 3):
            await client.first.wait()
        held: list[Lease] = leases(fleet)
        for lease in held:
            lease.connection, lease.answer, lease.waiting = Stuck(), Answer(lease.number), WaitingFor.CLIENT
            lease.revoke(STALLED)
        assert cut == [lease.number for lease in held]
        assert not leases(fleet)
        nursery.cancel_scope.cancel()
