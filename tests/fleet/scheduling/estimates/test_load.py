"""How long it will take until a model is loaded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import Pair
from fleet.scheduling.estimates.load import LONGEST, PAGE_CACHE, REAL, LoadSeconds
from tests.fleet.scheduling.estimates.pairs import AM, AN, BM, BN, GB, JUNK


def load(loads: LoadSeconds, pair: Pair, seconds: float, now: float, size: int | None = None) -> float:
    """One load that began at `now`, alone on its server; when it had ended."""
    assert loads.began(pair, size, now)
    loads.ended(pair, now + seconds)
    loads.learn(pair, size, seconds, now, now + seconds + 1.0)
    return now + seconds + 1.0


def test_before_anything_is_known_it_is_a_guess_by_size() -> None:
    loads = LoadSeconds()
    assert loads.seconds(AM, None, 0.0) == 10.0
    assert loads.seconds(AM, 4 * GB, 0.0) == 5.0
    loads.seen(AM, 0.0)
    assert loads.seconds(AM, 4 * GB, 1.0) == 1.5  # from the page cache


def test_page_cache_and_disk_are_two_populations() -> None:
    loads = LoadSeconds()
    now = 0.0
    for _ in range(5):
        now = load(loads, AM, 12.0, now + PAGE_CACHE + 1.0)
        for _ in range(2):
            now = load(loads, AM, 3.0, now)
    assert loads.seconds(AM, None, now) == pytest.approx(3.0, rel=0.01)
    assert loads.seconds(AM, None, now + PAGE_CACHE + 1.0) == pytest.approx(12.0, rel=0.01)


def test_the_median_stands_though_one_load_took_for_ever() -> None:
    loads, now = LoadSeconds(), 0.0
    for seconds in (8.0, 9.0, 400.0, 10.0, 9.0):
        now = load(loads, AM, seconds, now + PAGE_CACHE + 1.0)
    assert loads.seconds(AM, None, now + PAGE_CACHE + 1.0) == pytest.approx(9.0, rel=0.02)


def test_another_model_is_told_by_size_and_the_speed_of_the_server_then_of_the_fleet() -> None:
    loads = LoadSeconds()
    now = load(loads, AN, 2.0, 0.0, 4 * GB)
    assert loads.seconds(AM, 8 * GB, now) == pytest.approx(4.0)
    assert loads.seconds(BM, 8 * GB, now) == pytest.approx(4.0)
    load(loads, BN, 8.0, now, 4 * GB)
    assert loads.seconds(BM, 8 * GB, now + 20.0) == pytest.approx(16.0)
    assert loads.seconds(AM, 8 * GB, now + 20.0) == pytest.approx(4.0)


def test_of_a_load_under_way_only_the_rest_is_left() -> None:
    loads = LoadSeconds()
    now = load(loads, AM, 20.0, 0.0) + PAGE_CACHE + 1.0
    assert loads.began(AM, None, now)
    assert loads.seconds(AM, None, now + 15.0, drain=99.0) == pytest.approx(5.0, rel=0.01)
    assert loads.seconds(AM, None, now + 40.0) == pytest.approx(4.0, rel=0.01)  # it has overrun: a tenth of its age
    loads.ended(AM, now + 41.0)
    assert not loads.loading(AM, now + 41.0)


def test_loads_on_one_server_stand_behind_each_other() -> None:
    loads = LoadSeconds()
    now = load(loads, AM, 20.0, 0.0) + PAGE_CACHE + 1.0
    loads.began(AM, None, now)
    loads.began(AN, 4 * GB, now)  # by a guess 5 s
    assert loads.seconds(AN, None, now + 1.0) == pytest.approx(19.0 + 5.0, rel=0.05)
    assert loads.seconds(AM, None, now + 1.0) == pytest.approx(19.0, rel=0.01)
    assert loads.seconds(BN, None, now + 1.0, drain=2.0) == pytest.approx(12.0)


def test_who_waits_for_the_load_of_another_is_no_sample() -> None:
    loads = LoadSeconds()
    assert loads.began(AM, None, 0.0)
    assert not loads.began(AM, None, 3.0)


def test_the_wait_behind_a_load_of_another_model_is_taken_off() -> None:
    loads = LoadSeconds()
    loads.began(AN, None, 0.0)
    loads.began(AM, None, 1.0)
    loads.ended(AN, 10.0)
    loads.ended(AM, 15.0)
    loads.learn(AM, None, 14.0, 1.0, 20.0)
    assert loads.alone(AM, None, 20.0 + PAGE_CACHE + 1.0) == pytest.approx(5.0, rel=0.01)


def test_a_load_behind_one_of_which_no_end_is_known_is_no_sample() -> None:
    loads = LoadSeconds()
    loads.began(AN, None, 0.0)
    loads.began(AM, None, 1.0)
    loads.ended(AM, 15.0)
    loads.learn(AM, None, 14.0, 1.0, 20.0)
    assert loads.alone(AM, None, 20.0 + PAGE_CACHE + 1.0) == 10.0


def test_a_load_whose_end_nobody_told_is_forgotten() -> None:
    loads = LoadSeconds()
    loads.began(AM, None, 0.0)
    assert loads.loading(AM, 60.0)
    assert not loads.loading(AM, 3600.0)
    assert loads.seconds(AN, None, 3600.0) == 10.0


def test_it_converges_to_the_truth_of_each_tier_under_noise() -> None:
    dice, loads, now = random.Random(1), LoadSeconds(), 0.0
    for _ in range(20):
        now = load(loads, AM, 12.0 * dice.lognormvariate(0.0, 0.15), now + PAGE_CACHE + 1.0)
        now = load(loads, AM, 3.0 * dice.lognormvariate(0.0, 0.15), now)
    assert loads.alone(AM, None, now) == pytest.approx(3.0, rel=0.25)
    assert loads.alone(AM, None, now + PAGE_CACHE + 1.0) == pytest.approx(12.0, rel=0.25)


def test_without_loads_it_drifts_back_to_the_guess() -> None:
    loads = LoadSeconds()
    now = load(loads, AM, 300.0, 0.0)
    assert loads.alone(AM, 4 * GB, now + PAGE_CACHE + 1.0) > 250
    assert loads.alone(AM, 4 * GB, now + 40 * 86400.0) == pytest.approx(5.0, rel=0.01)


@given(st.lists(st.tuples(st.sampled_from([AM, AN, BM]), st.one_of(st.floats(), st.none()), st.integers(-1, 2**70))))
def test_no_sample_leads_out_of_bounds(samples: list[tuple[Pair, float | None, int]]) -> None:
    loads = LoadSeconds()
    for at, (pair, seconds, size) in enumerate(samples):
        loads.learn(pair, size, seconds, at * 1.0, at + 0.5)
    for pair in (AM, AN, BM, BN):
        assert REAL <= loads.alone(pair, 4 * GB, 100.0) <= LONGEST


def test_what_is_under_a_tenth_of_a_second_was_no_load() -> None:
    loads = LoadSeconds()
    loads.learn(AM, None, 0.09, 0.0, 1.0)
    assert loads.alone(AM, None, 1.0) == 10.0


def test_plain_and_back_is_the_same() -> None:
    loads, back = LoadSeconds(), LoadSeconds()
    now = load(loads, AM, 20.0, 0.0, 4 * GB)
    now = load(loads, AM, 5.0, now, 4 * GB)
    back.load_plain(loads.to_plain(now, 100), 9000.0)
    for later in (1.0, PAGE_CACHE + 100.0):
        assert back.alone(AM, None, 9000.0 + later) == pytest.approx(loads.alone(AM, None, now + later))


@pytest.mark.parametrize("data", [*JUNK, [["a", "m", [[[5.0, 1.0]], [], "x"]]], [["a", "m", [[[-5.0, 1.0]], [], 1e5]]]])
def test_junk_in_a_file_is_left_out(data: object) -> None:
    loads = LoadSeconds()
    loads.load_plain(data, 0.0)
    assert loads.alone(AM, None, 0.0) == 10.0


def test_as_long_as_only_loads_from_disk_were_seen_the_page_cache_is_twice_as_fast() -> None:
    loads = LoadSeconds()
    load(loads, AM, 20.0, 0.0, 5 * GB)
    assert loads.alone(AN, 5 * GB, 100.0, 1) == pytest.approx(20.0, rel=0.05)
    assert loads.alone(AN, 5 * GB, 100.0, 0) == pytest.approx(10.0, rel=0.05)
    assert loads.alone(BN, 5 * GB, 100.0, 0) == pytest.approx(10.0, rel=0.05)
