"""How long a token of the answer takes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import Pair, ServerId
from fleet.scheduling.estimates.decode import LONGEST, SHORTEST, SLOPE, STEP, DecodeSpeed
from tests.fleet.scheduling.estimates.pairs import AM, AN, BM, BN, GB, JUNK, M

CM = Pair(ServerId("c"), M)


def taught(*samples: tuple[float, float], repeat: int = 20) -> DecodeSpeed:
    """Samples of (streams beside, seconds per token), all at 0."""
    speed = DecodeSpeed()
    for _ in range(repeat):
        for beside, step in samples:
            speed.learn(AM, None, beside, 100, 100 * step, 0.0)
    return speed


def test_before_anything_is_known_all_are_fast() -> None:
    assert DecodeSpeed().step(AM, None, 0, 0.0) == STEP
    assert DecodeSpeed().step(AM, None, 2, 0.0) == pytest.approx(STEP * (1 + 2 * SLOPE))


def test_it_converges_to_the_line_under_noise() -> None:
    dice, speed = random.Random(1), DecodeSpeed()
    for at in range(300):
        beside = dice.uniform(0.0, 6.0)
        step = (0.02 + 0.004 * beside) * dice.lognormvariate(0.0, 0.15)
        speed.learn(AM, None, beside, 200, 200 * step, at * 1.0)
    for beside in (0, 2, 5):
        assert speed.step(AM, None, beside, 300.0) == pytest.approx(0.02 + 0.004 * beside, rel=0.1)


def test_one_that_was_only_seen_alone_is_taken_to_slow_down_a_little() -> None:
    speed = taught((0.0, 0.1))
    assert speed.step(AM, None, 0, 0.0) == pytest.approx(0.1, rel=0.03)
    assert speed.step(AM, None, 3, 0.0) == pytest.approx(0.1 * (1 + 3 * SLOPE), rel=0.03)


def test_neither_level_nor_slope_is_negative() -> None:
    falling = taught((0.0, 0.1), (4.0, 0.05))
    assert falling.line(AM, None, 0.0)[1] == 0.0
    steep = taught((4.0, 0.01), (5.0, 0.09))
    assert steep.line(AM, None, 0.0)[0] == 0.0
    assert steep.line(AM, None, 0.0)[1] > 0.0


def test_no_prediction_is_above_four_times_the_median() -> None:
    assert taught((0.0, 0.02), (1.0, 0.06)).step(AM, None, 1000, 0.0) == pytest.approx(4 * 0.04, rel=0.5)


def test_one_absurd_sample_hardly_moves_it() -> None:
    speed = taught((0.0, 0.02))
    speed.learn(AM, None, 0.0, 100, 1e5, 0.0)
    assert speed.step(AM, None, 0, 0.0) < 0.025


def test_another_model_is_told_by_size_and_the_speed_of_the_server_the_unknown_server_by_the_fast_quartile() -> None:
    speed = DecodeSpeed()
    for _ in range(10):
        speed.learn(AM, 4 * GB, 0.0, 100, 2.0, 0.0)
        speed.learn(BM, 4 * GB, 0.0, 100, 8.0, 0.0)
    assert speed.step(AN, 8 * GB, 0, 0.0) == pytest.approx(0.04)
    assert speed.step(BN, 8 * GB, 0, 0.0) == pytest.approx(0.16)
    assert speed.step(CM, 8 * GB, 0, 0.0) == pytest.approx(0.04)


def test_a_slow_time_is_forgotten_without_traffic() -> None:
    speed = taught((0.0, 2.0))
    assert speed.step(AM, None, 0, 0.0) == pytest.approx(2.0, rel=0.05)
    assert speed.step(AM, None, 0, 40 * 900.0) == pytest.approx(STEP, rel=0.01)


def test_a_change_is_followed_with_time_however_many_samples_were_before() -> None:
    speed = taught((0.0, 0.02), repeat=2000)
    for at in range(20):
        speed.learn(AM, None, 0.0, 100, 5.0, 12 * 900.0 + at)
    assert speed.step(AM, None, 0, 12 * 900.0 + 20) == pytest.approx(0.05, rel=0.1)


_numbers = st.one_of(st.integers(), st.floats(), st.none())
_streams = st.one_of(st.floats(), st.integers(-5, 50))


@given(st.lists(st.tuples(_streams, _numbers, _numbers), max_size=20), st.integers(-1, 2**62), st.floats(0.0, 1e6))
def test_no_sample_leads_out_of_bounds(samples: list[tuple[float, object, object]], size: int, later: float) -> None:
    speed = DecodeSpeed()
    for beside, tokens, seconds in samples:
        speed.learn(AM, size, beside, tokens, seconds, 0.0)
    for pair in (AM, AN, CM):
        assert 0.0 <= speed.step(pair, size, 3, later) <= 4 * LONGEST
        assert speed.step(pair, size, 4, later) >= speed.step(pair, size, 3, later) >= SHORTEST


def test_plain_and_back_is_the_same() -> None:
    speed, back = taught((0.0, 0.02), (3.0, 0.05)), DecodeSpeed()
    back.load_plain(speed.to_plain(100.0, 10), 5000.0)
    for beside in (0, 3, 100):
        assert back.step(AM, None, beside, 5000.0) == pytest.approx(speed.step(AM, None, beside, 100.0), rel=0.02)


@pytest.mark.parametrize(
    "data",
    [
        *JUNK,
        [["a", "m", [[1, 1, 1, 1], []]]],
        [["a", "m", [[1.0, 9.0, 1.0, 1.0, 1.0], []]]],
        [["a", "m", [[1, 0, 0, -1, 0], []]]],
    ],
)
def test_junk_in_a_file_is_left_out(data: object) -> None:
    speed = DecodeSpeed()
    speed.load_plain(data, 0.0)
    assert speed.step(AM, None, 0, 0.0) == STEP
