"""Whole fleets on virtual time: order, breakers, budgets, and nothing left over after any storm."""

from __future__ import annotations

import contextlib
import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import BanPair, LiftBans
from fleet.breakers.gate import GateState
from fleet.common.errors import FleetError, NoServer
from fleet.common.ids import ModelName, Pair, ServerId
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

PAIR = Pair(ServerId("a"), ModelName("m:latest"))


async def test_200_streams_on_8_slots_finish_in_order_of_arrival_per_class(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=4) as fleet:
        started: dict[int, list[int]] = {0: [], 5: []}

        async def watch() -> None:
            seen: set[str] = set()
            while True:
                for cell in fleet.system.servers.values():
                    for lease in cell.leases.values():
                        if lease.request_id not in seen:
                            seen.add(lease.request_id)
                            started[lease.call.priority].append(numbers[lease.request_id])
                await trio.sleep(0.001)

        numbers: dict[str, int] = {}
        clients = [Client() for _ in range(200)]
        calls = [chat(priority=5 if n % 4 == 0 else 0, tokens=3 + n % 5) for n in range(200)]
        for n, call in enumerate(calls):
            numbers[call.request_id] = n
        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as nursery:
                for call, client in zip(calls, clients, strict=True):
                    nursery.start_soon(fleet.system.exchange, call, client)
                    await wait_all_tasks_blocked()
            watching.cancel_scope.cancel()
        assert all(client.complete for client in clients)
        for priority, order in started.items():
            assert len(order) == (50 if priority else 150)
            # Two servers grant in the same instant, so neighbours may swap within what 8 slots can hold.
            assert all(abs(place - rank) <= 8 for rank, place in enumerate(_ranks(order)))
        assert max(fleet[s].host.max_active for s in "ab") <= 4
        fleet.assert_nothing_left()


def _ranks(order: list[int]) -> list[int]:
    by_arrival = sorted(order)
    return [by_arrival.index(number) for number in order]


async def fail(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        await fleet.system.exchange(chat(pinned="a"), Client())


async def test_a_breaker_opens_half_opens_and_closes(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", circuit_breaker={"adaptive": False}) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        for _ in range(3):
            await fleet.system.exchange(chat(pinned="a"), Client())
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.SHUT
        for _ in range(5):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-server"] == "b"
        fleet["a"].host.faults.clear()
        await trio.sleep(140.0)
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.LIMITED
        fleet["b"].kill()
        await trio.sleep(30.0)
        for _ in range(6):
            await fleet.system.exchange(chat(), client := Client())
            assert client.complete
        await wait_all_tasks_blocked()
        assert PAIR.model not in fleet.cell("a").state.gates or (
            fleet.cell("a").state.gates[PAIR.model].state is GateState.OPEN
        )
        fleet.assert_nothing_left()


async def test_when_every_breaker_is_open_the_answer_is_503_with_the_time_of_the_next_try(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", circuit_breaker={"adaptive": False}) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        for _ in range(3):
            await fleet.system.exchange(chat(), Client())
        refusals: list[NoServer] = []
        while not refusals:  # what comes first are trials of the last that is left, further and further apart
            try:
                await fleet.system.exchange(chat(), Client())
            except NoServer as refusal:
                refusals.append(refusal)
        assert 1.0 <= (refusals[0].retry_after or 0) <= 1.5
        assert "breaker" in refusals[0].details or "kept away" in refusals[0].details


async def test_a_recovery_test_closes_the_breaker_of_an_idle_server_without_traffic(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker={"adaptive": False}) as fleet:
        await fleet.system.exchange(chat(), Client())  # loads the model
        fleet["a"].host.faults.set("status:503:down,times=3")
        await fail(fleet, 3)
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.gates[PAIR.model].state is not GateState.OPEN
        await trio.sleep(290.0)  # the model stays in memory for five minutes
        assert fleet["a"].host.seen("/api/generate"), "the tester asked for a token"
        assert fleet.system.breakers.get(PAIR) is None or fleet.cell("a").state.admits(PAIR.model)


async def test_a_recovery_test_never_loads_a_model(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker={"adaptive": False}) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        await fail(fleet, 3)
        await trio.sleep(400.0)
        assert not fleet["a"].host.seen("/api/generate")
        assert fleet["a"].host.server.loads_begun == 0


async def test_a_banned_pair_gets_nothing_until_the_ban_ends(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        cast = fleet.system.scheduler.mailbox.cast
        cast(BanPair(PAIR, "bad answers", trio.current_time() + 60.0))
        for _ in range(4):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-server"] == "b"
        cast(BanPair(Pair(ServerId("b"), PAIR.model), "too", trio.current_time() + 500.0))
        await trio.sleep(70.0)
        await fleet.system.exchange(chat(), client := Client())
        assert client.headers["x-fleet-server"] == "a"
        cast(LiftBans(ServerId("b"), PAIR.model))
        await wait_all_tasks_blocked()
        assert not fleet.cell("b").state.barred


async def test_failover_stops_when_the_retry_budget_is_used_up(autojump_clock: MockClock) -> None:
    retry = {"budget_floor": 2, "budget_ratio": 0.0}
    async with open_fleet("a", "b", retry=retry, enable_circuit_breaker=False) as fleet:
        for server in "ab":
            fleet[server].host.faults.set("status:503:down")
        attempts = []
        for _ in range(5):
            await fleet.system.exchange(chat(), client := Client())
            attempts.append(int(client.headers["x-fleet-attempts"]))
        assert sum(attempts) - len(attempts) == 2


async def test_a_server_added_while_running_is_used(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        spec = fleet.cell("b").state.spec
        await fleet.system.remove_server(ServerId("b"), drain=False)
        fleet.system.add_server(spec)
        await fleet.system.probe(ServerId("b"), 5.0)
        fleet["a"].kill()
        await trio.sleep(30.0)
        await fleet.system.exchange(chat(), client := Client())
        assert client.headers["x-fleet-server"] == "b"


@pytest.mark.parametrize("policy", ["weighted", "least_connections", "fastest_response", "round_robin", "random"])
async def test_every_policy_serves_a_mixed_load(autojump_clock: MockClock, policy: str) -> None:
    async with open_fleet("a", "b", "c", slots=2, load_balancer={"policy": policy}) as fleet:
        clients = [Client() for _ in range(30)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
        assert all(client.complete for client in clients)
        assert {client.headers["x-fleet-server"] for client in clients} == {"a", "b", "c"}
        fleet.assert_nothing_left()


FAULTS = [
    "reset-before-headers@0.3",
    "reset-mid-stream:2@0.3",
    "status:503:busy@0.5",
    "runner-crash@0.3",
    "stall-mid-stream:2@0.2",
    "no-done@0.3",
    "garbage@0.3",
    "hang-before-headers@0.2",
]


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_left_after_a_storm(autojump_clock: MockClock, seed: int) -> None:
    """Clients come, leave at any moment, stop reading; servers fail in every way; in the end all slots are free."""
    dice = random.Random(seed)
    timeouts = {"idle": 5.0, "write": 5.0, "first_byte": 10.0, "queue": 20.0}
    async with open_fleet("a", "b", "c", slots=3, seed=seed, timeouts=timeouts, drain_timeout=5.0) as fleet:
        ended = []

        async def one(patience: float) -> None:
            client = Client()
            if dice.random() < 0.1:
                client.leave()
            with trio.move_on_after(patience):
                if dice.random() < 0.1:
                    client.stop_reading()
                with contextlib.suppress(FleetError):
                    await fleet.system.exchange(chat(dice.choice("mn"), stream=dice.random() < 0.8), client)
            ended.append(client)

        async def weather() -> None:
            while True:
                await trio.sleep(dice.uniform(0.5, 3.0))
                server = dice.choice("abc")
                fleet[server].host.faults.clear()
                if dice.random() < 0.7:
                    fleet[server].host.faults.set(dice.choice(FAULTS))
                if dice.random() < 0.2:
                    fleet[server].kill()
                    await trio.sleep(1.0)
                    fleet[server].restart()

        async with trio.open_nursery() as storm:
            storm.start_soon(weather)
            async with trio.open_nursery() as nursery:
                for _ in range(150):
                    nursery.start_soon(one, dice.choice([0.2, 2.0, 10.0, 60.0]))
                    await trio.sleep(dice.expovariate(10.0))
            storm.cancel_scope.cancel()
        assert len(ended) == 150
        await wait_all_tasks_blocked()
        fleet.assert_nothing_left()


async def test_the_queue_view_says_who_waits_where_and_how_long_still(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        for _ in range(4):
            await fleet.system.exchange(chat(tokens=50), Client())
        for model in ("m", "m", "m", "n"):
            nursery.start_soon(fleet.system.exchange, chat(model, tokens=50), Client())
            await wait_all_tasks_blocked()
        view = fleet.system.queries.queue_view()
        assert (view.waiting, view.processing) == (3, 1)
        assert [(item.model, item.position) for item in view.items] == [
            ("m:latest", 0), ("m:latest", 1), ("n:latest", 0),
        ]  # fmt: skip
        first, second = view.items[0].estimate, view.items[1].estimate
        assert first is not None
        assert second == pytest.approx(2 * first)
        assert 0.3 < first < 3.0
        nursery.cancel_scope.cancel()
