from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.history.request_row import RequestRow, RowNumbers
from fleet.history.rollups import SECONDS, SUMS, TIERS, Rollup, RollupKey, Rollups, add_rows, key_of, merge_into
from tests.fleet.history.test_request_row import ROW, row

rows = st.builds(
    row,
    queue=st.floats(min_value=0.0, max_value=100.0),
    total=st.floats(min_value=0.0, max_value=1000.0),
    load=st.none() | st.floats(min_value=0.0, max_value=50.0),
    first_byte=st.none() | st.floats(min_value=0.0, max_value=100.0),
    prompt_tokens=st.none() | st.integers(0, 10_000),
    output_tokens=st.none() | st.integers(0, 10_000),
    stream=st.booleans(),
    server=st.sampled_from(["a", "b"]),
    outcome=st.sampled_from(["completed", "client_left", "backend_broke", "refused_404"]),
    tries=st.integers(1, 3),
)


def numbered(many: list[tuple[float, RequestRow]]) -> list[tuple[int, RequestRow]]:
    numbers = RowNumbers()
    return [(numbers.next(at), each) for at, each in many]


def test_a_request_belongs_to_the_minute_in_which_it_ended() -> None:
    (number, _) = numbered([(119.9, ROW)])[0]
    assert key_of(number, ROW) == RollupKey(60, "a", "tiny:latest", "/api/chat", "key:alice", "completed")


def test_what_is_summed_up() -> None:
    rollups: Rollups = {}
    many = [(1.0, ROW), (2.0, row(total=4.0, load=3.0, tries=2, wasted=1.0)), (3.0, row(stream=False))]
    (key,) = add_rows(rollups, numbered(many))
    got = rollups[key]
    assert (got.requests, got.attempts, got.cold) == (3, 4, 1)
    assert (got.prompt_tokens, got.output_tokens) == (30, 60)
    assert (got.slot, got.load, got.wait, got.wasted) == (4.5, 3.0, 1.5, 1.0)
    assert (got.shortest, got.longest) == (2.0, 4.0)
    assert (got.totals.count, got.waits.count, got.first_tokens.count) == (3, 3, 2)


@given(st.lists(st.tuples(st.floats(min_value=0.0, max_value=200_000.0), rows), max_size=25))
def test_coarser_sums_are_those_of_the_rows(many: list[tuple[float, RequestRow]]) -> None:
    minutes: Rollups = {}
    add_rows(minutes, numbered(many))
    fine = minutes
    for tier in TIERS[1:]:
        coarse: Rollups = {}
        merge_into(coarse, fine, tier)
        assert all(key.bucket % tier == 0 for key in coarse)
        whole = Rollup()
        for rollup in coarse.values():
            whole.merge(rollup)
        assert whole.requests == len(many)
        assert whole.longest == max((each.total for _, each in many), default=0.0)
        assert whole.load == pytest.approx(sum(each.load or 0.0 for _, each in many))
        fine = coarse


def test_a_percentile_is_told_of_enough_requests_and_never_beyond_what_was_seen() -> None:
    rollup = Rollup()
    for _ in range(19):
        rollup.add(row(total=1.01))
    assert rollup.percentile(0.5) is None
    rollup.add(row(total=1.01))
    assert [rollup.percentile(share) for share in (0.0, 0.5, 1.0)] == [1.01, 1.01, 1.01]


def test_merging_leaves_no_figure_out() -> None:
    one, both = Rollup(), Rollup()
    one.add(row(load=2.0, wasted=1.0))
    both.merge(one)
    both.merge(one)
    for name in SUMS:
        assert getattr(both, name) == 2 * getattr(one, name) > 0, name
    assert set(SECONDS) < set(SUMS)
