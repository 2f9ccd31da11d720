"""Every kind of key that is said to act at once does so, on a running fleet, and nothing that runs is lost by it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.config.reconfigure import apply
from fleet.breakers.state_machine import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.config import Config
from fleet.scheduling.server_state import Admin, Health
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

PAIR = Pair(ServerId("a"), ModelName("m:latest"))


def having(config: Config, **changes: Any) -> Config:
    """The same with other values; sections may be given in part."""
    plain = config.model_dump(exclude={"port"})
    for name, value in changes.items():
        plain[name] = {**plain[name], **value} if isinstance(value, dict) else value
    return Config.model_validate(plain)


def change(fleet: Fleet, **changes: Any) -> Config:
    return apply(fleet.system.config_ref, fleet.system.membership, having(fleet.system.config, **changes))


async def busy(fleet: Fleet, nursery: trio.Nursery, count: int, **call: Any) -> list[Client]:
    """Requests that are under way or wait, in order of arrival."""
    clients = [Client() for _ in range(count)]
    for client in clients:
        nursery.start_soon(fleet.system.exchange, chat(**call), client)
        await wait_all_tasks_blocked()
    return clients


# ---- the lines


async def test_the_size_of_the_queue_follows_and_nobody_who_waits_is_sent_away(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, queue={"max_size": 2}) as fleet, trio.open_nursery() as nursery:
        clients = await busy(fleet, nursery, 3, tokens=50)
        assert await error_of(fleet, chat()) == "QueueFull"
        change(fleet, queue={"max_size": 3})
        clients += await busy(fleet, nursery, 1, tokens=50)
        change(fleet, queue={"max_size": 0})
        assert await error_of(fleet, chat()) == "QueueFull"
        change(fleet, monitoring={"max_queue_size": 4})
        clients += await busy(fleet, nursery, 1, tokens=50)
        change(fleet, enable_queue=False)
        assert await error_of(fleet, chat()) == "NoServer"
        while not all(client.complete for client in clients):
            await trio.sleep(0.1)
        fleet.assert_nothing_left()


async def test_another_ageing_counts_for_those_who_wait_already(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, queue={"ageing_seconds": 1000}) as fleet, trio.open_nursery() as nursery:
        (running,) = await busy(fleet, nursery, 1, tokens=500)
        (patient,) = await busy(fleet, nursery, 1)
        await trio.sleep(5.0)
        (urgent,) = await busy(fleet, nursery, 1, priority=1)
        change(fleet, queue={"ageing_seconds": 1})
        while not patient.started:
            await trio.sleep(0.01)
        assert running.complete
        assert not urgent.started


async def test_a_shorter_grace_ends_a_wait_without_hope(autojump_clock: MockClock) -> None:
    async with open_fleet("a", queue={"no_server_grace": 600}, health={"interval": 1}) as fleet:
        fleet["a"].kill()
        while fleet.cell("a").state.health is Health.HEALTHY:
            await trio.sleep(0.1)
        errors: list[str] = []

        async def wait() -> None:
            errors.append(await error_of(fleet, chat()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(10.0)
            assert not errors
            began = trio.current_time()
            change(fleet, queue={"no_server_grace": 2})
        assert errors == ["NoServer"]
        assert trio.current_time() - began < 5.0


async def test_the_cap_on_requests_in_flight_follows_in_both_directions(autojump_clock: MockClock) -> None:
    monitoring = {"max_concurrent_requests": 1}
    async with open_fleet("a", slots=4, monitoring=monitoring) as fleet, trio.open_nursery() as nursery:
        clients = await busy(fleet, nursery, 4, tokens=500)
        assert fleet.system.in_flight == 1
        change(fleet, monitoring={"max_concurrent_requests": 3})
        assert fleet.system.in_flight == 3
        change(fleet, monitoring={"max_concurrent_requests": 2})
        assert fleet.system.in_flight == 3
        change(fleet, monitoring={"max_concurrent_requests": None})
        assert fleet.system.in_flight == 4
        assert fleet.system.scheduler.memory.total.capacity == float("inf")
        while not all(client.complete for client in clients):
            await trio.sleep(0.1)
        fleet.assert_nothing_left()


async def test_policy_weights_and_memory_of_decisions_follow(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", load_balancer={"policy": "round_robin"}) as fleet:
        for _ in range(4):
            await fleet.system.exchange(chat(tokens=1), Client())
        change(fleet, load_balancer={"policy": "least_connections", "decisions": 3})
        for _ in range(4):
            await fleet.system.exchange(chat(tokens=1), Client())
        decisions = fleet.system.scheduler.memory.decisions
        assert [each.policy for each in decisions] == ["least_connections"] * 3
        change(fleet, load_balancer={"policy": "weighted", "weights": {"priority": 100.0}})
        await fleet.system.exchange(chat(tokens=1), Client())
        parts = fleet.system.scheduler.memory.decisions[-1].scored[0][1]
        assert parts[-1] > 50.0
        change(fleet, load_balancer={"candidates": 1})
        await fleet.system.exchange(chat(tokens=1), Client())
        assert len(fleet.system.scheduler.memory.decisions[-1].scored) == 1


async def test_a_dispatcher_that_crashed_goes_on_by_the_new_rules(
    autojump_clock: MockClock, expected_errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_errors.append("actor dispatcher crashed")
    async with open_fleet("a", slots=4) as fleet, trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr("fleet.scheduling.scheduler.scheduler.Scheduler.reconfigure", lambda *_: 1 / 0)
            change(fleet, monitoring={"max_concurrent_requests": 1}, queue={"max_size": 1})
            await trio.sleep(1.0)
        clients = await busy(fleet, nursery, 2, tokens=5)
        assert await error_of(fleet, chat()) == "QueueFull"
        while not all(client.complete for client in clients):
            await trio.sleep(0.1)


# ---- servers and breakers


async def test_probes_follow_another_interval_without_waiting_for_the_old_one(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health={"interval": 3600, "failures": 5}) as fleet:
        rounds = fleet.cell("a").rounds
        await trio.sleep(100.0)
        assert fleet.cell("a").rounds == rounds
        change(fleet, health={"interval": 1, "failures": 1})
        await trio.sleep(20.0)
        assert fleet.cell("a").rounds >= rounds + 10
        fleet["a"].kill()
        await trio.sleep(3.0)
        assert fleet.cell("a").state.health is Health.UNHEALTHY


async def test_breakers_that_exist_follow_and_go_when_they_are_switched_off(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        promise = fleet.system.breakers.force(PAIR, BreakerState.OPEN, "test")
        assert promise is not None
        await wait_all_tasks_blocked()
        change(fleet, circuit_breaker={"open_timeout": 5000, "half_open_max_requests": 7})
        assert fleet.system.breakers.settings.open_timeout == 5.0
        assert fleet.system.breakers._cells[PAIR].breaker.settings.half_open_max_requests == 7
        assert fleet.system.breakers.get(PAIR) is not None
        change(fleet, enable_circuit_breaker=False)
        assert len(fleet.system.breakers) == 0
        assert await error_of(fleet, chat()) == ""


async def test_breakers_that_are_not_meant_are_left_alone(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        promise = fleet.system.breakers.force(PAIR, BreakerState.OPEN, "test")
        assert promise is not None
        told: list[object] = []
        fleet.system.breakers.configure = lambda *args: told.append(args)  # type: ignore[method-assign]
        change(fleet, queue={"max_size": 3})
        assert told == []


async def test_retries_follow(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", "c", retry={"max_attempts": 1}) as fleet:
        change(fleet, retry={"max_attempts": 2, "budget_ratio": 0.0, "budget_floor": 1})
        assert (fleet.system.scheduler.budget.ratio, fleet.system.scheduler.budget.floor) == (0.0, 1)
        for server in "abc":
            fleet[server].host.faults.set("status:503:down")
        tried = []
        for _ in range(2):
            await fleet.system.exchange(chat(), Client())
            tried.append(sum(seen.path == "/api/chat" for server in "abc" for seen in fleet[server].host.requests))
        assert tried == [2, 3]  # then the budget is used up


async def test_time_limits_follow_for_requests_that_begin(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet, trio.open_nursery() as nursery:
        await busy(fleet, nursery, 1, tokens=2000)
        change(fleet, timeouts={"queue": 3})
        began = trio.current_time()
        assert await error_of(fleet, chat()) == "QueueTimeout"
        assert 2.9 < trio.current_time() - began < 4.5
        change(fleet, timeouts={"total": 2, "queue": 300})
        assert await error_of(fleet, chat()) == "TotalTimeout"
        change(fleet, server={"request_timeout": 1000})
        assert fleet.system.config.total_timeout == 1000


async def test_limits_of_a_running_stream_follow(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        fleet["a"].host.faults.set("stall-mid-stream:2")
        (client,) = await busy(fleet, nursery, 1, tokens=50)
        await client.first.wait()
        change(fleet, timeouts={"idle": 5})
        await trio.sleep(10.0)
        assert client.finished or client.aborted
        assert not client.complete


# ---- the fleet itself


async def test_servers_join_and_leave_while_streams_go_on(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=2) as fleet, trio.open_nursery() as nursery:
        (client,) = await busy(fleet, nursery, 1, tokens=500, pinned="a")
        await client.first.wait()
        b = next(spec for spec in fleet.system.config.servers if spec.id == "b")
        apply(
            fleet.system.config_ref,
            fleet.system.membership,
            fleet.system.config.model_copy(update={"servers": (b,)}),
            base=(b,),
        )
        assert [spec.id for spec in fleet.system.config.servers] == ["b"]
        await trio.sleep(1.0)
        assert fleet.cell("a").state.admin is Admin.DRAINING
        while ServerId("a") in fleet.system.servers:
            await trio.sleep(0.1)
        assert client.complete


async def test_drains_have_as_long_as_the_new_configuration_says(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", drain_timeout=1000) as fleet, trio.open_nursery() as nursery:
        await busy(fleet, nursery, 1, tokens=5000, pinned="a")
        change(fleet, drain_timeout=3)
        began = trio.current_time()
        await fleet.system.remove_server(ServerId("a"))
        assert trio.current_time() - began < 5.0


async def test_what_needs_a_restart_is_not_believed_before(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        before = fleet.system.config
        after = change(fleet, server={"host": "::1", "proxy_port": 9}, limits={"header_bytes": 2048, "headers": 17})
        assert after is fleet.system.config
        assert after.server == before.server
        assert (after.limits.header_bytes, after.limits.headers) == (before.limits.header_bytes, 17)


async def test_limits_of_background_jobs_follow(autojump_clock: MockClock) -> None:
    async with open_fleet("a", models="m:latest:1GB,n:latest:1GB") as fleet:
        change(fleet, jobs={"per_server": 1, "total": 3, "waiting": 5, "keep": 0, "load_timeout": 9})
        assert (fleet.system.jobs._limits.per_server, fleet.system.jobs._limits.total) == (1, 3)
        assert fleet.system.config.jobs.keep == 0
