"""How many requests a runner serves at once, learned on a simulated one: a queue before so many slots."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.runner_slots import PROBE_AGAIN, RunnerSlots, ServiceTold

PREFILL, PATIENCE = 0.2, 0.5


@dataclass
class SimulatedRunner:
    """First come, first served; clients keep as many open as `slots` allows. `native`: answers tell their times."""

    real: int
    slots: RunnerSlots
    native: bool = True
    streams: bool = True
    service: float = 3.0
    now: float = 0.0
    sent: int = 0
    waited: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    queue: deque[tuple[int, float]] = field(default_factory=deque)
    busy: int = 0
    events: list[tuple[float, int, str, float, float]] = field(default_factory=list)
    foreign: set[int] = field(default_factory=set)
    open: int = 0

    def run(self, requests: int, most: float = float("inf")) -> None:
        """Send so many, always as many at once as the limit says, until all are over."""
        until = self.sent + requests
        while self.sent < until or self.events:
            while self.sent < until and self.open < min(self.slots.limit(self.now), most):
                self.sent += 1
                self.open += 1
                self.slots.sent(self.sent, self.now, PREFILL, PATIENCE)
                self.queue.append((self.sent, self.now))
                self._start()
            self._step()

    def occupy(self, requests: int, seconds: float) -> None:
        """Somebody beside us takes slots."""
        for _ in range(requests):
            number = -1 - len(self.foreign)
            self.foreign.add(number)
            self.busy += 1
            heapq.heappush(self.events, (self.now + seconds, number, "ended", self.now, self.now))

    def _start(self) -> None:
        while self.queue and self.busy < self.real:
            number, sent = self.queue.popleft()
            self.busy += 1
            self.waited += self.now > sent
            decode = self.service * self.dice.lognormvariate(0.0, 0.4)
            heapq.heappush(self.events, (self.now + PREFILL, number, "spoke", sent, self.now))
            heapq.heappush(self.events, (self.now + PREFILL + decode, number, "ended", sent, self.now))

    def _step(self) -> None:
        self.now, number, what, sent, began = heapq.heappop(self.events)
        if what == "ended":
            self.busy -= 1
            if number > 0:
                self.open -= 1
                told = ServiceTold(began - sent, PREFILL, self.now - began - PREFILL) if self.native else None
                self.slots.ended(number, self.now, told)
            self._start()
        elif self.streams:
            self.slots.spoke(number, self.now)


@pytest.mark.parametrize("real", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("native", "streams"), [(True, True), (True, False), (False, True)])
def test_the_slots_of_a_busy_runner_are_found_and_hardly_anybody_waits_for_it(
    real: int, native: bool, streams: bool
) -> None:
    runner = SimulatedRunner(real, RunnerSlots(), native, streams)
    runner.run((4 if streams else 20) * (real + 2))  # answers in one piece prove nothing before they end
    assert runner.slots.known == real
    assert runner.slots.proven == real
    assert runner.slots.limit(runner.now) - runner.slots.probes(runner.now) == real
    assert runner.waited <= (3 if streams else 8)


@pytest.mark.parametrize("real", [1, 2, 4, 8])
def test_streams_find_the_slots_within_two_requests_more_than_there_are(real: int) -> None:
    """Busy requests: one for each slot that proves it, and two that have to wait."""
    slots = RunnerSlots()
    running = list(range(1, real + 1))
    for lease in running:
        assert slots.limit(lease * 1.0) >= lease
        slots.sent(lease, lease * 1.0, PREFILL, PATIENCE)
        slots.spoke(lease, lease + PREFILL)
    assert slots.proven == real
    for extra in (real + 1, real + 2):
        at = 10.0 * extra
        assert slots.limit(at) == real + 1
        slots.sent(extra, at, PREFILL, PATIENCE)
        slots.ended(running.pop(0), at + 3.0)
        slots.spoke(extra, at + 3.0 + PREFILL)
        slots.ended(extra, at + 5.0)
        running.append(100 + extra)  # its place is taken again
        slots.sent(100 + extra, at + 6.0, PREFILL, PATIENCE)
        slots.spoke(100 + extra, at + 6.0 + PREFILL)
    assert slots.known == slots.limit(10.0 * real + 27.0) == real


def test_a_long_prefill_that_stalls_everybody_is_no_missing_slot() -> None:
    slots = RunnerSlots()
    for lease in (1, 2):
        slots.sent(lease, lease * 1.0, PREFILL, PATIENCE)
        slots.spoke(lease, lease + PREFILL)
    for lease in (3, 4, 5):
        slots.sent(lease, lease * 10.0, PREFILL, PATIENCE)
        slots.spoke(lease, lease * 10.0 + 5.0)  # late, but nobody had ended
        slots.ended(lease, lease * 10.0 + 6.0)
    assert slots.known is None
    assert slots.proven == 3


def test_a_load_explains_any_wait() -> None:
    slots = RunnerSlots()
    for lease in (1, 2, 3):
        slots.sent(lease, 0.0, PREFILL, PATIENCE, loads=True)
    for lease in (1, 2, 3):
        slots.spoke(lease, lease * 5.0)
        slots.ended(lease, lease * 5.0 + 4.9)
    assert slots.known is None
    assert slots.foreign(20.0) == 0.0


def test_a_probe_is_repeated_after_a_minute_then_two_then_four() -> None:
    runner = SimulatedRunner(1, RunnerSlots())
    runner.run(10)
    found = runner.now
    assert not runner.slots.probes(found)
    for wait in (PROBE_AGAIN, 2 * PROBE_AGAIN, 4 * PROBE_AGAIN):
        runner.now += wait
        assert runner.slots.limit(runner.now) == 2
        before = runner.waited
        runner.run(6)
        assert runner.slots.limit(runner.now) == 1
        assert runner.waited - before <= 2


def test_a_mistake_is_taken_back_by_the_next_probe() -> None:
    runner = SimulatedRunner(4, RunnerSlots())
    runner.run(60)
    runner.slots.refused(runner.now)
    assert runner.slots.limit(runner.now) == 1
    for _ in range(6):
        runner.now += 10 * PROBE_AGAIN
        runner.run(30)
    assert runner.slots.limit(runner.now) == 4


def test_after_a_reload_all_is_open_again() -> None:
    """A server with four slots restarts with one."""
    runner = SimulatedRunner(4, RunnerSlots())
    runner.run(60)
    assert runner.slots.limit(runner.now) == 4
    runner.slots.reset()
    runner.real, runner.waited = 1, 0
    runner.run(10)
    assert runner.slots.limit(runner.now) == 1
    assert runner.waited <= 4


def test_fewer_slots_are_noticed_though_nobody_saw_the_restart() -> None:
    runner = SimulatedRunner(4, RunnerSlots())
    runner.run(60)
    runner.real = 2
    runner.run(60)
    assert runner.slots.limit(runner.now) == 2


def test_somebody_beside_us_who_holds_slots_is_noticed() -> None:
    runner = SimulatedRunner(4, RunnerSlots())
    runner.run(60)
    runner.occupy(2, 1000.0)
    runner.run(40)
    assert runner.slots.limit(runner.now) <= 3


def test_a_wait_with_nothing_open_is_foreign_work_and_fades() -> None:
    runner = SimulatedRunner(2, RunnerSlots())
    runner.run(30)
    slots, now = runner.slots, runner.now + 1500.0
    for lease in range(1000, 1006):
        now += 20.0
        slots.sent(lease, now, PREFILL, PATIENCE)
        slots.ended(lease, now + 8.0, ServiceTold(5.0, PREFILL, 2.8))
    assert slots.foreign(now) > 1.0
    assert slots.limit(now) == 1
    assert slots.foreign(now + 3000.0) < 0.1


def test_embeddings_begin_with_one_and_probe_after_a_minute() -> None:
    slots = RunnerSlots(alone=True)
    assert slots.limit(1e6) == 1
    slots.sent(1, 0.0, PREFILL, PATIENCE)
    assert slots.limit(1.0) == 1
    assert slots.limit(PROBE_AGAIN) == 2


def test_a_number_in_the_configuration_is_a_cap() -> None:
    runner = SimulatedRunner(8, RunnerSlots())
    runner.run(100)
    assert runner.slots.limit(runner.now) == 8
    assert runner.slots.limit(runner.now, cap=4) == 4
    assert RunnerSlots().limit(0.0, cap=1) == 1


_events = st.lists(
    st.tuples(
        st.sampled_from(["sent", "spoke", "ended", "failed", "refused", "reset"]), st.integers(0, 9), st.floats(0, 9)
    ),
    max_size=80,
)


@given(_events, st.booleans())
def test_any_order_of_events_leaves_at_least_one_slot_and_no_more_than_one_above_what_was_open(
    events: list[tuple[str, int, float]], alone: bool
) -> None:
    slots, now, most = RunnerSlots(alone=alone), 0.0, 1
    for what, lease, seconds in events:
        now += seconds
        if what == "sent":
            slots.sent(lease, now, PREFILL, PATIENCE)
        elif what == "spoke":
            slots.spoke(lease, now)
        elif what == "ended":
            slots.ended(lease, now, ServiceTold(seconds, 0.1, 0.5))
        elif what == "failed":
            slots.ended(lease, now, well=False)
        elif what == "refused":
            slots.refused(now)
        else:
            slots.reset()
        most = max(most, slots.open)
        assert 1 <= slots.limit(now) <= 66
        assert slots.proven <= 65
        assert slots.foreign(now) >= 0.0
        assert slots.known is None or slots.known >= slots.proven
