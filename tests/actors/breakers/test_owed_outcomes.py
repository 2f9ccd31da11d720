"""A refusal's outcome may be owed for long; the permit of its trial is not: it is given back at once, and only once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.breakers.breaker_actor import BreakerActor
from actors.breakers.messages import RecordOutcome
from fleet.breakers.gate import GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerState, Why
from fleet.common.ids import ModelName, Pair, ServerId
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

A, B, M = ServerId("a"), ServerId("b"), ModelName("m:latest")
PAIR = Pair(A, M)
RULES: dict[str, Any] = {
    "circuit_breaker": {"half_open_max_requests": 2, "half_open_timeout": 5_000, "recovery_success_threshold": 100},
    "timeouts": {"queue": 600, "first_byte": 600, "idle": 600, "total": 3600},
}
REFUSES, LONG = "status:503:down", 5_000
Way = Callable[["Scene"], Awaitable[None]]


class Scene:
    """A is half-open and has refused a request, which now waits in line for B; another trial of A is under way."""

    def __init__(self, fleet: Fleet, nursery: trio.Nursery) -> None:
        self.fleet, self._nursery = fleet, nursery
        self.waiting = trio.CancelScope()
        self.busy = trio.CancelScope()
        self.ended = trio.Event()

    @property
    def trials_out(self) -> int:
        gate = self.fleet.cell("a").state.gates[M]
        assert gate.state is GateState.LIMITED
        return int(gate.trials_out)

    async def half_open(self) -> None:
        said = self.fleet.system.breakers.force(PAIR, BreakerState.HALF_OPEN, "test")
        assert said is not None
        await said.wait(5.0)

    def start(self, scope: trio.CancelScope, *, tokens: int, pinned: str | None = None) -> None:
        async def run() -> None:
            with scope:
                await error_of(self.fleet, chat(tokens=tokens, pinned=pinned))

        self._nursery.start_soon(run)

    async def set(self) -> None:
        self.start(self.busy, tokens=LONG, pinned="b")
        await trio.sleep(3.0)
        self.fleet["a"].host.faults.set(REFUSES)
        await self.half_open()
        self._nursery.start_soon(self.refused)
        await trio.sleep(1.0)
        self.fleet["a"].host.faults.clear()
        assert len(self.fleet.system.scheduler.tickets) == 1, "it waits for a second opinion"
        assert self.trials_out == 0, "nothing of it runs at A any more"
        self.start(trio.CancelScope(), tokens=LONG)
        await trio.sleep(3.0)
        assert self.trials_out == 1

    async def refused(self) -> None:
        with self.waiting:
            await error_of(self.fleet, chat(), Client())
        self.ended.set()


async def served(scene: Scene) -> None:
    scene.busy.cancel()


async def agreed(scene: Scene) -> None:
    scene.fleet["b"].host.faults.set(REFUSES)
    scene.busy.cancel()


async def left(scene: Scene) -> None:
    scene.waiting.cancel()


async def cancelled(scene: Scene) -> None:
    [ticket] = scene.fleet.system.scheduler.tickets.values()
    scene.fleet.system.orders.cancel_waiting(ticket.request_id)


async def alone(scene: Scene) -> None:
    await scene.fleet.system.remove_server(B, drain=False)


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]) -> None:
    """The breaker breaks at the outcome."""
    expected_errors.append("crash")
    original = BreakerActor._handle

    def handle(self: BreakerActor, message: Any, now: float) -> None:
        if isinstance(message, RecordOutcome):
            raise RuntimeError("injected")
        original(self, message, now)

    monkeypatch.setattr(BreakerActor, "_handle", handle)


async def permits_after(way: Way) -> None:
    async with open_fleet("a", "b", slots=1, **RULES) as fleet, trio.open_nursery() as nursery:
        fleet.system.change_server(fleet.cell("a").state.spec.model_copy(update={"max_concurrency": 3}))
        scene = Scene(fleet, nursery)
        await scene.set()
        await way(scene)
        with trio.fail_after(60.0):
            await scene.ended.wait()
        await trio.sleep(1.0)
        assert scene.trials_out == 1, "what is under way has its permit still"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", [served, agreed, left, cancelled, alone])
async def test_the_permit_of_a_refused_trial_is_back_at_once_and_only_once(autojump_clock: MockClock, way: Way) -> None:
    await permits_after(way)


@pytest.mark.usefixtures("crashing")
async def test_a_breaker_that_crashes_at_an_owed_outcome_gives_no_permit_back_twice(autojump_clock: MockClock) -> None:
    await permits_after(served)


async def test_who_takes_the_name_of_a_server_inherits_no_owed_outcome(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=1, **RULES) as fleet, trio.open_nursery() as nursery:
        scene = Scene(fleet, nursery)
        await scene.set()
        spec = fleet.cell("a").state.spec
        await fleet.system.remove_server(A, drain=False)
        fleet.system.add_server(spec)
        await fleet.system.probe(A, 10.0)
        await scene.half_open()
        scene.start(trio.CancelScope(), tokens=LONG)
        await trio.sleep(3.0)
        assert scene.trials_out == 1
        scene.busy.cancel()
        with trio.fail_after(60.0):
            await scene.ended.wait()
        await trio.sleep(1.0)
        assert scene.trials_out == 1
        view = fleet.system.breakers.get(PAIR)
        assert view is not None
        assert view.total_request_count == 0
        nursery.cancel_scope.cancel()


async def test_a_refusal_that_waits_for_a_witness_is_no_trial_that_hangs(autojump_clock: MockClock) -> None:
    rules = RULES | {"circuit_breaker": RULES["circuit_breaker"] | {"open_timeout": 1_000, "adaptive": False}}
    async with open_fleet("a", "b", slots=1, **rules) as fleet, trio.open_nursery() as nursery:
        scene = Scene(fleet, nursery)
        scene.start(scene.busy, tokens=LONG, pinned="b")
        for _ in range(3):
            fleet.system.breakers.record(PAIR, Signal.FAILURE, "backend_broke")
        await trio.sleep(6.0)  # it half-opens, and a recovery test passes
        fleet["a"].host.faults.set("status:504:slow today")
        nursery.start_soon(scene.refused)
        await trio.sleep(1.0)
        assert len(fleet.system.scheduler.tickets) == 1
        fleet["a"].host.faults.clear()
        await trio.sleep(20.0)
        assert not scene.ended.is_set()
        view = fleet.system.breakers.get(PAIR)
        assert view is not None
        assert view.state is BreakerState.HALF_OPEN
        assert Why.TRIALS_HUNG.value not in [moved.why for moved in view.history]
        nursery.cancel_scope.cancel()
