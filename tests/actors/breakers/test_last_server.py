"""When all breakers of a model would be open while probes pass: the last server is never shut for good."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.breakers.gate import GateState
from fleet.breakers.state_machine import BreakerState
from fleet.common.errors import NoServer
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Health, ServerState
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

MODEL = ModelName("m:latest")
PLAIN = {"adaptive": False}
POLICIES = ["weighted", "least_connections", "fastest_response", "round_robin", "random"]


async def shut(fleet: Fleet, *servers: str) -> None:
    """Three failures in a row on each, as its clients' crashing requests make them; then all work again."""
    for server in servers:
        fleet[server].host.faults.set("status:503:down,times=3")
        for _ in range(3):
            await fleet.system.exchange(chat(pinned=server), Client())
    await wait_all_tasks_blocked()


def gate(fleet: Fleet, server: str) -> GateState:
    state: ServerState = fleet.cell(server).state
    return state.gate_state(MODEL)


@pytest.mark.parametrize("policy", POLICIES)
async def test_both_breakers_open_and_every_client_got_503_for_116_s_while_both_were_healthy(
    autojump_clock: MockClock, policy: str
) -> None:
    async with open_fleet("a", "b", circuit_breaker=PLAIN, load_balancer={"policy": policy}) as fleet:
        await shut(fleet, "a", "b")
        assert {gate(fleet, "a"), gate(fleet, "b")} == {GateState.SHUT, GateState.LIMITED}
        began = trio.current_time()
        clients = [Client() for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
        assert all(client.complete for client in clients)
        assert trio.current_time() - began < 10.0
        fleet.assert_nothing_left()


async def test_a_shut_server_was_left_alone_when_the_other_died(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", circuit_breaker=PLAIN, health={"interval": 1.0}) as fleet:
        await shut(fleet, "a")
        assert gate(fleet, "a") is GateState.SHUT, "there is another"
        fleet["b"].kill()
        await trio.sleep(5.0)
        assert gate(fleet, "a") is GateState.LIMITED
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete


async def test_a_shut_server_that_comes_back_alone_is_tried(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", circuit_breaker=PLAIN, health={"interval": 1.0}) as fleet:
        await shut(fleet, "a")
        fleet["a"].kill()
        await trio.sleep(5.0)
        fleet["b"].kill()
        await trio.sleep(5.0)
        assert gate(fleet, "a") is GateState.SHUT, "its probes fail"
        fleet["a"].restart()
        while fleet.cell("a").state.health is not Health.HEALTHY:
            await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        assert gate(fleet, "a") is GateState.LIMITED


async def test_trials_of_a_last_server_that_fails_on_and_on_are_apart_and_nobody_waits_for_them(
    autojump_clock: MockClock,
) -> None:
    """Thirty clients ask for half a minute: the server hears of them about every other second, and all are answered."""
    async with open_fleet("a", circuit_breaker=PLAIN) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        longest = 0.0

        async def keep_asking() -> None:
            nonlocal longest
            while True:
                began = trio.current_time()
                await error_of(fleet, chat())
                longest = max(longest, trio.current_time() - began)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(keep_asking)
            await trio.sleep(5.0)
            heard = len(fleet["a"].host.seen("/api/chat"))
            await trio.sleep(30.0)
            # At each trial's end the next in line may go before it is known whose fault the refusal was.
            assert 20 <= len(fleet["a"].host.seen("/api/chat")) - heard <= 2 * 20
            nursery.cancel_scope.cancel()
        assert longest <= 3.5, "the grace, and a look at who waits every second"


async def test_a_last_server_that_works_again_is_found_within_moments(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker=PLAIN) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        for _ in range(40):
            await error_of(fleet, chat())
            await trio.sleep(0.5)
        fleet["a"].host.faults.clear()
        began = trio.current_time()
        while True:
            try:
                await fleet.system.exchange(chat(), client := Client())
            except NoServer:
                await trio.sleep(0.1)
                continue
            if client.complete:
                break
        assert trio.current_time() - began < 4.0, "a trial is due every 1.5 s; then it loads the model and answers"


async def test_what_an_operator_has_shut_stays_shut_though_it_is_the_last(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        forced = fleet.system.breakers.force(Pair(ServerId("a"), MODEL), BreakerState.OPEN, "ada")
        assert forced is not None
        await forced.wait(1.0)
        await trio.sleep(10.0)
        assert gate(fleet, "a") is GateState.SHUT
        assert await error_of(fleet, chat()) == "NoServer"


async def test_a_last_server_that_nobody_asks_is_not_tested_every_other_second(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker=PLAIN) as fleet:
        await fleet.system.exchange(chat(), Client())  # loads the model
        fleet["a"].host.faults.set("status:503:down", "status:500:broken,paths=/api/generate")
        for _ in range(3):
            await fleet.system.exchange(chat(), Client())
        await trio.sleep(120.0)
        assert 4 <= len(fleet["a"].host.seen("/api/generate")) <= 12
