"""Things that went wrong once with calls of a special kind: show, transfers, embeddings, tests, bans."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import BanPair
from fleet.breakers.gate import GateState
from fleet.common.errors import FleetError, LoopDetected
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.protocol.call import Call
from tests.kit.fleets.fleet import Client, chat, open_fleet

A = ServerId("a")
PAIR = Pair(A, ModelName("m:latest"))


def show(model: str = "m") -> Call:
    call = chat(model, stream=False)
    body = b'{"model":"%s"}' % model.encode()
    return dataclasses.replace(call, target="/api/show", endpoint="/api/show", body=body, runs=False)


async def test_show_waited_for_a_slot(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.exchange, chat(tokens=5000), Client())
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await fleet.system.exchange(show(), client := Client())
        assert client.status == 200
        assert trio.current_time() - began < 0.5
        assert fleet.cell("a").state.in_use == 1
        nursery.cancel_scope.cancel()


async def test_show_proved_a_crashing_model_healthy(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker={"adaptive": False}) as fleet:
        fleet["a"].host.faults.set("status:503:down,paths=/api/chat")
        for _ in range(3):
            await fleet.system.exchange(chat(), Client())
            await fleet.system.exchange(show(), client := Client())
            assert client.status == 200
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.gates[PAIR.model].state is not GateState.OPEN
        await fleet.system.exchange(show(), client := Client())
        assert client.status == 200


async def test_a_stalled_transfer_was_never_ended(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"first_byte": 20.0}) as fleet:
        fleet["a"].host.faults.set("all:stall-mid-stream:1")
        body = b'{"model":"newone","stream":true}'
        call = dataclasses.replace(chat(), target="/api/pull", endpoint="/api/pull", body=body)
        await fleet.system.relay_to(A, call, client := Client())
        assert "stood still" in client.records[-1]["error"]
        assert not fleet.cell("a").transfers


async def test_a_fleet_that_was_its_own_server_filled_up_with_its_own_requests(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        await fleet.system.exchange(chat(), Client())
        hop = fleet["a"].host.seen("/api/chat")[0].header("x-fleet-hop")
        assert hop
        again = dataclasses.replace(chat(), headers=[(b"x-fleet-hop", b"other," + hop.encode())])
        with pytest.raises(LoopDetected):
            await fleet.system.exchange(again, Client())


async def test_bans_outlived_their_server(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet.system.scheduler.mailbox.cast(BanPair(PAIR, "test", float("inf")))
        await wait_all_tasks_blocked()
        assert len(fleet.system.scheduler.bans) == 1
        await fleet.system.remove_server(A)
        await wait_all_tasks_blocked()
        assert len(fleet.system.scheduler.bans) == 0


async def test_a_merged_pull_was_unknown_to_drain_removal_and_the_stall_watch(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"first_byte": 20.0}) as fleet:

        async def long_pull(ended: list[FleetError]) -> None:
            try:
                with fleet.system.watched(A):
                    await trio.sleep_forever()
            except FleetError as error:
                ended.append(error)

        stalled: list[FleetError] = []
        await long_pull(stalled)
        assert "stood still" in stalled[0].message
        removed: list[FleetError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(long_pull, removed)
            await wait_all_tasks_blocked()
            await fleet.system.remove_server(A, drain=False)
        assert "taken away" in removed[0].message
        fleet.system.drain()
        await fleet.system.drained()
        with pytest.raises(FleetError):
            fleet.system.check_open()


async def test_an_unstreamed_embedding_waited_for_the_total_time(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", timeouts={"first_byte": 10.0, "total": 1000.0}) as fleet:
        fleet["a"].host.faults.set("hang-before-headers")
        call = dataclasses.replace(chat(stream=False), embedding=True)
        for _ in range(3):
            await fleet.system.exchange(call, client := Client())
            assert client.headers["x-fleet-server"] == "b"
        assert trio.current_time() < 60.0


async def test_a_recovery_test_trusted_an_old_look_at_the_servers_memory(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker={"adaptive": False}, health={"interval": 500.0}) as fleet:
        await fleet.system.exchange(chat(), Client())
        await fleet.system.probe(A, 5.0)
        assert PAIR.model in fleet.cell("a").state.resident
        fleet["a"].host.faults.set("status:503:down,times=3")
        for _ in range(3):
            await fleet.system.exchange(chat(pinned="a"), Client())
        for runner in tuple(fleet["a"].host.server.runners.values()):
            fleet["a"].host.server.crash(runner, trio.current_time())  # no probe has seen the model go
        await trio.sleep(320.0)
        assert not fleet["a"].host.seen("/api/generate")


async def test_show_sped_up_the_pace_that_waiting_times_are_computed_from(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        for _ in range(10):
            await fleet.system.exchange(show(), Client())
        await wait_all_tasks_blocked()
        memory = fleet.system.scheduler.memory
        assert memory.rate.per_second(trio.current_time()) == 0.0
        assert memory.waited.count == 0
        for _ in range(3):
            await fleet.system.exchange(chat(), Client())
        await wait_all_tasks_blocked()
        assert memory.rate.per_second(trio.current_time()) > 0.0
        assert memory.waited.count == 3
        fleet.assert_nothing_left()
