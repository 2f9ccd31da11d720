"""What a running fleet counts and shows, on virtual time."""

from __future__ import annotations

import dataclasses
from functools import partial

import orjson
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.metrics.definitions import METRICS
from fleet.protocol.call import Call
from fleet.scheduling.server_state import Order
from fleet.simulator import Profile
from tests.kit.cases.metrics import figures
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

A, M = ServerId("a"), ModelName("m:latest")
SLOW = Profile(load_seconds=20.0, slots=4, tokens_per_second=10.0, prefill_per_second=1e6, jitter=0.0)
QUIET = {"interval": 3600}
"""Nobody probes unless asked."""


def wide(call: Call, num_ctx: int) -> Call:
    """The same, with another context."""
    assert isinstance(call.body, bytes)
    body = orjson.loads(call.body)
    body["options"]["num_ctx"] = num_ctx
    call.body = orjson.dumps(body)
    call.runner = {"num_ctx": num_ctx}
    return call


def loads(fleet: Fleet, model: str = "m:latest") -> tuple[float, float, float]:
    """Loads, reloads, evictions of a model on the first server."""
    found = figures(fleet.system)
    names = ("loads", "reloads", "evictions")
    first, second, third = (found.get((f"fleet_model_{name}_total", "a", model), 0.0) for name in names)
    return first, second, third


def agree(fleet: Fleet) -> int:
    """In flight, by everybody's account."""
    found = figures(fleet.system)
    leases = sum(len(cell.leases) for cell in fleet.system.servers.values())
    assert found[("fleet_in_flight",)] == leases
    assert found[("ollama_proxy_active_requests",)] == leases
    assert sum(value for key, value in found.items() if key[0] == "fleet_server_in_flight") == leases
    assert found[("fleet_open_requests",)] == leases + found[("fleet_queue_waiting",)]
    assert found[("ollama_proxy_queue_size",)] == found[("fleet_queue_waiting",)]
    return leases


async def test_in_flight_is_the_number_of_open_leases_at_every_moment(autojump_clock: MockClock) -> None:
    seen = set()
    async with open_fleet("a", "b", slots=3, queue={"max_size": 100}) as fleet, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(error_of, fleet, chat("mn"[number % 2], tokens=5 + number))
            await wait_all_tasks_blocked()
            seen.add(agree(fleet))
        assert figures(fleet.system)[("fleet_queue_oldest_seconds",)] == 0.0
        while fleet.system.in_flight:
            await trio.sleep(0.3)
            seen.add(agree(fleet))
    assert seen == set(range(7)), "from nobody over both servers full to nobody"


async def test_a_description_under_way_is_an_open_request_that_holds_no_slot(autojump_clock: MockClock) -> None:
    """It holds a lease and no slot; counted by slots it was none, and the fleet seemed drained while it ran."""
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        fleet["a"].host.faults.set("hang-before-headers,paths=/api/show")
        call = chat(stream=False)
        call = dataclasses.replace(call, target="/api/show", endpoint="/api/show", body=b'{"model":"m"}', runs=False)
        nursery.start_soon(error_of, fleet, call)
        await wait_all_tasks_blocked()
        found = figures(fleet.system)
        assert (found[("fleet_open_requests",)], found[("fleet_queue_waiting",)]) == (1, 0)
        assert fleet.cell("a").state.in_use == 0
        assert agree(fleet) == 1
        nursery.cancel_scope.cancel()


async def test_a_load_a_reload_and_an_eviction_are_each_counted_once(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), health=QUIET) as fleet:
        await fleet.system.exchange(chat("m"), Client())
        await fleet.system.probe(A, 10.0)
        assert loads(fleet) == (1, 0, 0)
        await fleet.system.exchange(chat("m"), Client())
        assert loads(fleet) == (1, 0, 0)
        await fleet.system.exchange(wide(chat("m"), 8192), Client())
        assert loads(fleet) == (2, 1, 0)
        await fleet.system.client(A).unload("m")
        await fleet.system.probe(A, 10.0)
        assert loads(fleet) == (2, 1, 1)


async def test_what_a_server_has_in_memory_when_it_is_first_seen_was_not_loaded(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), health={**QUIET, "failures": 1}) as fleet:
        await fleet.system.exchange(chat("m"), Client())
        await fleet.system.probe(A, 10.0)
        fleet["a"].kill()
        await fleet.system.probe(A, 10.0)
        assert figures(fleet.system)["fleet_server_up", "a"] == 0
        fleet["a"].refusing = False
        await fleet.system.probe(A, 10.0)
        assert figures(fleet.system)["fleet_server_up", "a"] == 1
        assert loads(fleet) == (1, 0, 0)


async def test_a_breaker_is_shown_and_its_moves_are_counted(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        opened = fleet.system.breakers.force(Pair(A, M), BreakerState.OPEN, "me")  # by itself, the last is not for long
        assert opened is not None
        await opened.wait(1.0)
        await wait_all_tasks_blocked()
        found = figures(fleet.system)
        assert found["fleet_breaker_state", "a", M] == 2
        assert found["fleet_breakers", "open"] == 1
        assert found["fleet_breaker_transitions_total", "a", M, "open"] == 1
        assert found["fleet_model_routable", M] == 0
        assert found["fleet_model_installed", M] == 1
        promise = fleet.system.breakers.reset(Pair(A, M))
        assert promise is not None
        await promise.wait(1.0)
        found = figures(fleet.system)
        assert found["fleet_breaker_transitions_total", "a", M, "closed"] == 1
        assert found["fleet_model_routable", M] == 1


async def test_every_server_is_in_one_state(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", "c", "d", health={**QUIET, "failures": 1}) as fleet:
        await fleet.system.ordered(ServerId("b"), Order.MAINTAIN, "test", "me")
        await fleet.system.ordered(ServerId("c"), Order.DRAIN, "test", "me")
        fleet["d"].kill()
        await fleet.system.probe(ServerId("d"), 10.0)
        found = figures(fleet.system)
        states = {key[1]: value for key, value in found.items() if key[0] == "fleet_servers"}
        assert states == {"ok": 1, "down": 1, "unknown": 0, "draining": 0, "drained": 1, "maintenance": 1}
        assert [found["fleet_server_in_service", server] for server in "abcd"] == [1, 0, 0, 1]
        assert [found["fleet_server_up", server] for server in "abcd"] == [1, 1, 1, 0]


async def test_a_drain_shows_how_long_it_takes(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=QUIET) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(partial(error_of, fleet, chat("m", tokens=500)))
        await wait_all_tasks_blocked()
        await fleet.system.ordered(A, Order.DRAIN, "test", "me")
        await trio.sleep(3.0)
        assert figures(fleet.system)["fleet_server_drain_seconds", "a"] == pytest.approx(3.0, abs=0.1)
        nursery.cancel_scope.cancel()


async def test_models_that_are_asked_for_have_gauges_first(autojump_clock: MockClock) -> None:
    names = [f"m{number}:latest" for number in range(10)]
    models = ",".join(f"{name}:1GB" for name in names)
    async with open_fleet("a", models=models, metrics={"models": 2, "pairs": 3}) as fleet:
        await fleet.system.exchange(chat("m7"), Client())
        found = figures(fleet.system)
        assert {key[1] for key in found if key[0] == "fleet_model_installed"} == {"m0:latest", "m7:latest"}
        assert await error_of(fleet, chat("invented")) == "ModelNotFound"
        assert figures(fleet.system)["fleet_unserved_total", "other", "model_not_found"] == 1


async def test_requests_that_find_the_fleet_closing_are_counted(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet.system.drain()
        assert await error_of(fleet, chat("m")) == "ShuttingDown"
        found = figures(fleet.system)
        assert found["ollama_proxy_requests_total", "POST", "/api/chat", "", "503"] == 1
        assert found[("fleet_draining",)] == 1


async def test_what_the_fleet_tells_has_exactly_the_labels_of_the_table(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        await fleet.system.exchange(chat("m"), Client())
        found = figures(fleet.system)
        labels = {metric.name: len(metric.labels) for metric in METRICS}
        assert {key[0]: len(key) - 1 for key in found}.items() <= labels.items()
        assert found["fleet_build_info", "1.0", "3.13"] == 1
        assert sum(value for key, value in found.items() if key[0] == "fleet_verdict") == 1
