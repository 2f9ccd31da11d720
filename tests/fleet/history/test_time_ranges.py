from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.history.rollups import TIERS
from fleet.history.time_ranges import TierPart, TimeSpan, aligned, cover, length_of, step_for

DAY = 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600), ("24h", DAY), ("7d", 7 * DAY), ("30d", 30 * DAY), ("90m", 5400), ("2w", 14 * DAY)],
)
def test_a_length_is_read(text: str, seconds: int) -> None:
    assert length_of(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "24", "-1h", "1.5h", "0m", "9999d", "99999999999h", "\u0661h x", "1y"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        length_of(text)


@pytest.mark.parametrize(
    ("ago", "tier"),
    [(3600, 60), (2 * DAY - 60, 60), (3 * DAY, 900), (40 * DAY, 3600), (400 * DAY, DAY), (3000 * DAY, DAY)],
)
def test_a_range_begins_where_there_are_buckets(ago: int, tier: int) -> None:
    now = 20_000 * DAY + 12_345.6
    span = aligned(now - ago, now, now)
    assert span.since % tier == 0
    assert 0 <= now - ago - span.since < tier
    assert (span.until % 60, 0 <= span.until - now < 60) == (0, True)


@pytest.mark.parametrize(
    ("since", "seconds", "step"),
    [
        (0, 3600, 60),
        (0, DAY, 900),
        (0, 7 * DAY, 3600),
        (0, 30 * DAY, 21_600),
        (3 * DAY, 3600, 900),
        (40 * DAY, 60, 3600),
    ],
)
def test_points_are_few_and_of_buckets_that_are_there(since: int, seconds: int, step: int) -> None:
    now = 1_000.0 * DAY
    begin = int(now) - since - seconds if since == 0 else int(now) - since
    found = step_for(TimeSpan(begin, begin + seconds), now, 200)
    assert (found >= step, found % 60) == (True, 0)
    assert seconds <= found * 200


def test_the_middle_is_made_of_coarse_buckets_and_the_ends_of_fine_ones() -> None:
    rolled = {900: 3 * DAY, 3600: 3 * DAY, DAY: 3 * DAY}
    assert cover(TimeSpan(DAY - 3660, 3 * DAY), rolled) == [
        TierPart(60, DAY - 3660, DAY - 3600),
        TierPart(3600, DAY - 3600, DAY),
        TierPart(DAY, DAY, 3 * DAY),
    ]


@given(
    since=st.integers(0, 5000),
    length=st.integers(0, 9000),
    marks=st.tuples(*[st.integers(0, 12_000)] * 3),
    step=st.sampled_from((*TIERS, 300, 5400)),
)
def test_a_range_is_covered_once_by_whole_buckets_that_are_there(
    since: int, length: int, marks: tuple[int, int, int], step: int
) -> None:
    minutes, quarters, hours = sorted(marks, reverse=True)
    rolled = {900: minutes * 60, 3600: quarters * 60 // 900 * 900, DAY: hours * 60 // 3600 * 3600}
    span = TimeSpan(since * 60, (since + length) * 60)
    parts = cover(span, rolled, step)
    at = span.since
    for part in parts:
        assert part.since == at < part.until
        assert part.since % part.tier == part.until % part.tier == 0
        assert step % part.tier == 0
        assert part.tier == 60 or part.until <= rolled[part.tier]
        at = part.until
    assert at == span.until
    assert len(parts) <= 2 * len(TIERS)
