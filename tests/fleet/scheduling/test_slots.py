"""Slots, counted from what is open; rates and budgets; the set that can be sampled."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet.common.model_names import canonical
from fleet.scheduling.indexed_set import IndexedSet
from fleet.scheduling.rates import RetryBudget, ServiceRate
from fleet.scheduling.slots import Slots


class LedgerMachine(RuleBasedStateMachine):
    """Opening and closing in any order, twice, unknown numbers, a capacity that moves."""

    @initialize(capacity=st.integers(0, 4))
    def start(self, capacity: int) -> None:
        self.ledger = Slots(capacity)
        self.model: dict[int, str] = {}

    @rule(number=st.integers(0, 9), name=st.sampled_from("mn"))
    def open(self, number: int, name: str) -> None:
        fits = number not in self.model and len(self.model) < self.ledger.capacity
        assert self.ledger.open(number, canonical(name)) == fits
        if fits:
            self.model[number] = name

    @rule(number=st.integers(0, 9))
    def close(self, number: int) -> None:
        assert self.ledger.close(number) == (self.model.pop(number, None) is not None)

    @rule(capacity=st.integers(0, 4))
    def resize(self, capacity: int) -> None:
        self.ledger.capacity = capacity

    @rule(numbers=st.sets(st.integers(0, 9)))
    def recount(self, numbers: set[int]) -> None:
        self.ledger.keep_only(numbers)
        self.model = {number: name for number, name in self.model.items() if number in numbers}

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.in_use == len(self.model)
            assert self.ledger.free == max(0, self.ledger.capacity - len(self.model))
            for name in "mn":
                assert self.ledger.of_model(canonical(name)) == list(self.model.values()).count(name)
            assert sum(self.ledger.models().values()) == len(self.model)


TestLedger = LedgerMachine.TestCase


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200), st.integers(1, 10))
def test_indexed_set_is_a_set(steps: list[tuple[bool, int]], seed: int) -> None:
    ours: IndexedSet[int] = IndexedSet()
    plain: set[int] = set()
    for add, item in steps:
        (ours.add if add else ours.discard)(item)
        (plain.add if add else plain.discard)(item)
        assert set(ours) == plain
        assert len(ours) == len(plain)
    walked = list(ours.from_anywhere(random.Random(seed)))
    assert len(walked) == len(plain)
    assert set(walked) == plain


def test_service_rate_is_completions_per_second() -> None:
    rate = ServiceRate()
    assert rate.wait_for(5, 0.0) is None
    for second in range(11):
        rate.note(second / 2)
    assert 1.9 < rate.per_second(5.0) < 2.3
    assert rate.per_second(100.0) < 0.2


def test_retries_are_a_share_of_traffic_plus_a_floor() -> None:
    budget = RetryBudget(ratio=0.2, floor=2)
    for _ in range(50):
        budget.request(1.0)
    assert sum(budget.spend(1.0, live=0) for _ in range(100)) == 12
    assert not budget.spend(4.0, live=0)
    budget.refund()
    assert budget.spend(4.0, live=0)
    assert sum(budget.spend(4.0, live=50) for _ in range(100)) == 10
    assert budget.spend(30.0, live=0)
