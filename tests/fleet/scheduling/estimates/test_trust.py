"""How far predictions are off."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.trust import HIGHEST, LOWEST, Accuracy, Trust
from tests.fleet.scheduling.estimates.pairs import AM, BM, JUNK


def told(*ratios: float, now: float = 0.0) -> Accuracy:
    accuracy = Accuracy()
    for ratio in ratios:
        accuracy.learn(10.0, 10.0 * ratio, now)
    return accuracy


def test_before_anything_is_known_predictions_stand_as_they_are() -> None:
    assert told().factor(0.0) == 1.0
    assert told().error(0.0) is None
    assert not told().unreliable(0.0)


def test_the_correction_converges_to_a_constant_bias_and_leaves_no_error() -> None:
    dice = random.Random(1)
    accuracy = told(*(1.5 * dice.lognormvariate(0.0, 0.2) for _ in range(200)))
    assert accuracy.factor(0.0) == pytest.approx(1.5, rel=0.05)
    assert accuracy.error(0.0) == pytest.approx(0.135, abs=0.05)  # the noise alone
    assert not accuracy.unreliable(0.0)


def test_predictions_that_are_off_by_more_than_two_half_of_the_time_are_not_relied_on() -> None:
    ratios = [8.0, 1 / 8.0] * 25
    assert told(*ratios).unreliable(0.0)
    assert not told(*ratios[:8]).unreliable(0.0)  # too few to tell
    assert not told(*[1.8, 1 / 1.8] * 25).unreliable(0.0)


def test_a_bias_beyond_what_is_corrected_is_not_relied_on_either() -> None:
    assert told(*[20.0] * 50).unreliable(0.0)
    assert told(*[20.0] * 50).factor(0.0) == HIGHEST


def test_it_is_relied_on_again_when_predictions_are_right_again() -> None:
    accuracy = told(*[8.0, 1 / 8.0] * 25)
    for _ in range(40):
        accuracy.learn(10.0, 10.0, 0.0)
    assert not accuracy.unreliable(0.0)


def test_it_does_not_flap_around_the_border() -> None:
    accuracy = told(*[8.0, 1 / 8.0] * 25)
    for _ in range(100):
        accuracy.learn(10.0, 19.0, 0.0)
        accuracy.learn(10.0, 10.0 / 1.9, 0.0)
    assert accuracy.unreliable(0.0)


def test_without_traffic_it_is_given_another_chance() -> None:
    accuracy = told(*[8.0, 1 / 8.0] * 25)
    assert not accuracy.unreliable(6 * 900.0)
    assert told(*[2.0] * 50).factor(30 * 900.0) == pytest.approx(1.0)


_seconds = st.one_of(st.floats(), st.integers(), st.none())


@given(st.lists(st.tuples(_seconds, _seconds), max_size=60))
def test_the_correction_is_never_more_than_twofold(samples: list[tuple[object, object]]) -> None:
    accuracy = Accuracy()
    for predicted, actual in samples:
        accuracy.learn(predicted, actual, 0.0)
    assert LOWEST <= accuracy.factor(1.0) <= HIGHEST


def test_each_pair_has_its_own_and_its_bias_survives_a_restart() -> None:
    trust, back = Trust(), Trust()
    for _ in range(30):
        trust.learn(AM, 1.0, 1.5, 0.0)
    assert trust.of(BM) is None
    back.load_plain(trust.to_plain(10.0, 100), 510.0)
    kept, now = back.of(AM), trust.of(AM)
    assert kept is not None
    assert now is not None
    assert kept.factor(510.0) == pytest.approx(now.factor(10.0))


@pytest.mark.parametrize("data", [*JUNK, [["a", "m", [5.0, 99.0, 0.0]]]])
def test_junk_in_a_file_is_left_out(data: object) -> None:
    trust = Trust()
    trust.load_plain(data, 0.0)
    assert trust.of(AM) is None
