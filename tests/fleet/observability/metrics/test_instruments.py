"""A pace over the last minute, against the list of all that came; tables with room for so many."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.observability.metrics.instruments import MINUTE, MinuteRate, Table

STEP = 5.0


@settings(max_examples=100, deadline=None)
@given(
    began=st.floats(0, 1e6),
    came=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100)), max_size=30),
    rest=st.floats(0, 200),
)
def test_a_pace_is_what_came_in_the_last_minute_by_its_length(
    began: float, came: list[tuple[float, int]], rest: float
) -> None:
    pace, now, amounts = MinuteRate(began), began, []
    for later, amount in came:
        now += later
        pace.add(now, amount)
        amounts.append((now, amount))
    now += rest
    edge = (now // STEP) * STEP - MINUTE
    expected = sum(amount for at, amount in amounts if at // STEP * STEP >= edge)
    span = max(min(now - edge, now - began), 1.0)
    assert pace.per_second(now) == pytest.approx(expected / span, rel=1e-6, abs=1e-9)


def test_a_pace_fades_to_nothing_and_starts_at_no_less_than_a_second() -> None:
    pace = MinuteRate(100.0)
    pace.add(100.1, 50)
    assert pace.per_second(100.2) == 50
    assert pace.per_second(110.1) == pytest.approx(50 / 10.1)
    assert pace.per_second(170.0) == 0


def test_a_table_has_room_for_so_many_and_forgets_what_is_gone_only_when_told() -> None:
    gone: set[str] = set()
    table: Table[str, list[int]] = Table(list, gone.__contains__)
    table.most = 2
    first = table.own("a")
    assert first is table.own("a")
    assert table.own("b") is not None
    assert table.own("c") is None
    assert table.shared("other") is table.shared("other")
    assert [key for key, _ in table.items()] == ["a", "b", "other"]
    gone.update({"a", "other"})
    assert table.own("c") is None
    table.sweep()
    assert table.own("c") is not None
    assert table.own("d") is None
    assert [key for key, _ in table.items()] == ["b", "c"]
