"""What the tests of the breaker actors share: a registry, a board of gates, and a tester that follows a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from actors.breakers.registry import BreakerRegistry
from fleet.breakers.gate import Gate, GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerSettings, BreakerState
from fleet.common.ids import ModelName, Pair, ServerId

A = Pair(ServerId("s1"), ModelName("llama3:8b"))
B = Pair(ServerId("s1"), ModelName("qwen3:4b"))
C = Pair(ServerId("s2:11434"), ModelName("llama3:8b"))
Part = bool | Exception | Callable[[], Awaitable[bool | None]] | None
PERIOD = 133.0  # longer than any first open period


class Script:
    """A recovery tester that follows a script; when it is used up, tests cannot be made. Notes when it was asked."""

    def __init__(self, *script: Part) -> None:
        self.script = list(script)
        self.asked: list[tuple[float, Pair]] = []
        self.running = 0

    async def test(self, pair: Pair, timeout: float) -> bool | None:
        assert timeout == 300.0
        self.asked.append((trio.current_time(), pair))
        assert self.running == 0
        self.running += 1
        try:
            return await self._play(self.script.pop(0) if self.script else None)
        finally:
            self.running -= 1

    async def _play(self, part: Part) -> bool | None:
        await trio.sleep(0.5)
        if isinstance(part, Exception):
            raise part
        return await part() if callable(part) else part


class Bench:
    """A registry with a board of gates, and what the dispatcher heard."""

    def __init__(self, tester: Script | None = None, **options: Any) -> None:
        self.gates: dict[Pair, Gate] = {}
        self.heard: list[tuple[float, Pair, GateState | None]] = []
        self.registry = BreakerRegistry(
            BreakerSettings(), gates=self, on_change=self.hear, rng=Random(7), tester=tester, **options
        )

    def set_gate(self, pair: Pair, gate: Gate | None) -> None:
        if gate is None:
            del self.gates[pair]
        else:
            self.gates[pair] = gate

    def hear(self, pair: Pair) -> None:
        gate = self.gates.get(pair)
        self.heard.append((trio.current_time(), pair, gate.state if gate else None))

    def attempt(self, signal: Signal, pair: Pair = A, kind: str = "other") -> None:
        """One attempt from admission to its end."""
        gate = self.gates.get(pair)
        assert gate is None or gate.take()
        self.registry.record(pair, signal, kind, gate.generation if gate else 0)

    async def fail(self, pair: Pair = A, times: int = 3) -> None:
        for _ in range(times):
            self.attempt(Signal.FAILURE, pair)
        await wait_all_tasks_blocked()

    def state(self, pair: Pair = A) -> BreakerState:
        view = self.registry.get(pair)
        return BreakerState.CLOSED if view is None else view.state


async def bench_with(nursery: trio.Nursery, tester: Script) -> Bench:
    bench = Bench(tester)
    await nursery.start(bench.registry.run)
    await bench.fail()
    return bench
