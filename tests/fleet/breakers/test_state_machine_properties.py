"""What never happens to a breaker, whatever happens to it."""

from __future__ import annotations

import math
from dataclasses import fields
from random import Random

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.breakers.gate import GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.persistence import restore, snapshot
from fleet.breakers.state_machine import Breaker, BreakerSettings, BreakerState
from fleet.common.ids import ModelName, Pair, ServerId

PAIR = Pair(ServerId("s1:11434"), ModelName("llama3:8b"))
FAILURES = (Signal.FAILURE, Signal.SOFT_FAILURE)
KINDS = st.sampled_from(["backend_unreachable", "refused_429", "stream_error", "other"])


class BreakerLife(RuleBasedStateMachine):
    """Anything may happen to a breaker, in any order; some things never do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(PAIR, BreakerSettings(error_rate_min_requests=5), Random(1))
        self.out: list[int] = []

    @rule(gap=st.sampled_from([0.0, 0.5, 30.0, 119.9, 130.0, 700.0]))
    def wait(self, gap: float) -> None:
        self.now += gap
        self.breaker.tick(self.now)
        assert self.breaker.wake_at > self.now

    @rule()
    def admit(self) -> None:
        admits = self.breaker.gate.admits
        assert self.breaker.gate.take() is admits
        if admits:
            self.out.append(self.breaker.gate.generation)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), signal=st.sampled_from(list(Signal)), kind=KINDS)
    def end(self, data: st.DataObject, signal: Signal, kind: str) -> None:
        generation = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before, forced, admitted = self.breaker.state, self.breaker.forced_by, self.breaker.gate.admits
        changed = self.breaker.record(signal, kind, self.now, generation)
        after = self.breaker.state
        if after is not before:
            assert changed
            assert forced is None
            assert before is not BreakerState.OPEN
            assert (after is BreakerState.OPEN) == (signal in FAILURES)
            assert (after is BreakerState.CLOSED) == (signal is Signal.SUCCESS)
        if self.breaker.gate.admits != admitted:
            assert changed

    @rule(state=st.sampled_from(list(BreakerState)))
    def force(self, state: BreakerState) -> None:
        self.breaker.force(state, self.now, "ada")
        assert self.breaker.state is state

    @rule()
    def reset(self) -> None:
        self.breaker.reset(self.now)
        assert self.breaker.quiet(self.now)

    @rule()
    def crash(self) -> None:
        """Restored from its snapshot, with the gate kept, it is the same breaker."""
        old = self.breaker
        new = restore(PAIR, old.settings, old.dice, old.gate, snapshot(old))
        for each in fields(Breaker):
            assert getattr(new, each.name) == getattr(old, each.name), each.name
        self.breaker = new

    @rule()
    def crash_again(self) -> None:
        old = self.breaker
        self.breaker = Breaker.fresh(PAIR, old.settings, old.dice, old.gate, self.now, old.forced_by)
        assert self.breaker.state is old.state

    @invariant()
    def a_shut_breaker_that_nobody_forced_has_a_wakeup(self) -> None:
        if self.breaker.state is not BreakerState.CLOSED:
            assert math.isfinite(self.breaker.wake_at) == (self.breaker.forced_by is None)

    @invariant()
    def permits_add_up(self) -> None:
        gate = self.breaker.gate
        assert 0 <= gate.permits <= gate.limit
        if gate.state is GateState.LIMITED:
            assert gate.trials_out == self.out.count(gate.generation)

    @invariant()
    def the_gate_shows_the_state(self) -> None:
        shown = {
            BreakerState.CLOSED: GateState.OPEN,
            BreakerState.OPEN: GateState.SHUT,
            BreakerState.HALF_OPEN: GateState.LIMITED,
        }
        assert self.breaker.gate.state is shown[self.breaker.state]

    @invariant()
    def a_quiet_breaker_has_nothing_to_wait_for(self) -> None:
        if self.breaker.quiet(self.now):
            assert self.breaker.gate.admits
            assert self.breaker.run.strikes == 0


TestBreakerLife = BreakerLife.TestCase
TestBreakerLife.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
