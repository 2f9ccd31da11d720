"""How long a prompt takes to be evaluated."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import Pair
from fleet.scheduling.estimates.prefill import FASTEST, RATE, SLOWEST, PrefillSpeed, batch_bin
from tests.fleet.scheduling.estimates.pairs import AM, AN, BM, BN, GB, JUNK


def test_batches_fall_into_bins_that_double() -> None:
    assert [batch_bin(batch) for batch in (-1, 0, 1, 2, 3, 4, 5, 8, 9, 10**9)] == [0, 0, 0, 1, 2, 2, 3, 3, 4, 4]


def test_before_anything_is_known_all_are_fast() -> None:
    assert PrefillSpeed().rate(AM, None, 1, 0.0) == RATE
    assert PrefillSpeed().seconds(AM, 4 * GB, 1, 500.0, 0.0) == 0.5


@pytest.mark.parametrize("hidden", [0.0, 0.3, 0.6])
def test_it_converges_to_the_truth_though_many_hits_are_hidden(hidden: float) -> None:
    dice, speed = random.Random(1), PrefillSpeed()
    for at in range(200):
        tokens = dice.randrange(100, 4000)
        evaluated = max(1, tokens // 20) if dice.random() < hidden else tokens
        speed.learn(AM, None, 1, tokens, evaluated / 800.0 * dice.lognormvariate(0.0, 0.1), at * 1.0)
    assert speed.rate(AM, None, 1, 200.0) == pytest.approx(800.0, rel=0.2)


def test_each_batch_has_its_own_speed_and_an_unknown_one_that_of_the_nearest() -> None:
    speed = PrefillSpeed()
    for _ in range(5):
        speed.learn(AM, None, 1, 1000, 1.0, 0.0)
        speed.learn(AM, None, 6, 1000, 4.0, 0.0)
    assert speed.rate(AM, None, 1, 0.0) == pytest.approx(1000.0)
    assert speed.rate(AM, None, 6, 0.0) == pytest.approx(250.0)
    assert speed.rate(AM, None, 2, 0.0) == pytest.approx(1000.0)
    assert speed.rate(AM, None, 40, 0.0) == pytest.approx(250.0)


def test_another_model_is_told_by_size_and_the_speed_of_the_server_the_unknown_server_by_the_fast_quartile() -> None:
    speed = PrefillSpeed()
    for _ in range(10):
        speed.learn(AM, 4 * GB, 1, 1000, 1.0, 0.0)
        speed.learn(BM, 4 * GB, 1, 1000, 4.0, 0.0)
    assert speed.rate(AN, 8 * GB, 1, 0.0) == pytest.approx(500.0)
    assert speed.rate(BN, 8 * GB, 1, 0.0) == pytest.approx(125.0)
    assert speed.rate(Pair(AM.server.__class__("c"), AM.model), 8 * GB, 1, 0.0) == pytest.approx(500.0)


def test_a_slow_time_is_forgotten_without_traffic() -> None:
    speed = PrefillSpeed()
    for _ in range(50):
        speed.learn(AM, None, 1, 1000, 100.0, 0.0)
    assert speed.rate(AM, None, 1, 0.0) == pytest.approx(10.0)
    assert speed.rate(AM, None, 1, 30 * 900.0) == pytest.approx(RATE, rel=0.01)


def test_short_prompts_say_nothing() -> None:
    speed = PrefillSpeed()
    speed.learn(AM, None, 1, 63, 100.0, 0.0)
    assert speed.rate(AM, None, 1, 0.0) == RATE


_numbers = st.one_of(st.integers(), st.floats(), st.none())


@given(st.lists(st.tuples(_numbers, _numbers, st.integers(-5, 50)), max_size=20), st.integers(-1, 2**62))
def test_no_sample_leads_out_of_bounds(samples: list[tuple[object, object, int]], size: int) -> None:
    speed = PrefillSpeed()
    for tokens, seconds, batch in samples:
        speed.learn(AM, size, batch, tokens, seconds, 0.0)
    for pair in (AM, AN, BM):
        assert SLOWEST <= speed.rate(pair, size, 3, 1.0) <= FASTEST


def test_plain_and_back_is_the_same() -> None:
    speed, back = PrefillSpeed(), PrefillSpeed()
    for batch in (1, 6):
        speed.learn(AM, None, batch, 1000, batch * 1.0, 0.0)
    back.load_plain(speed.to_plain(10.0, 100), 700.0)
    for batch in (1, 6):
        assert back.rate(AM, None, batch, 700.0) == pytest.approx(1000.0 / batch)


@pytest.mark.parametrize("data", [*JUNK, [["a", "m", [[[-1.0, 0.0]], [], [], [], []]]]])
def test_junk_in_a_file_is_left_out(data: object) -> None:
    speed = PrefillSpeed()
    speed.load_plain(data, 0.0)
    assert speed.rate(AM, None, 1, 0.0) == RATE
