"""How probably a prompt is still cached."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.cache_hits import AGES, LATER, PRIORS, CacheHits
from tests.fleet.scheduling.estimates.pairs import JUNK, A, B

RATE = 1000.0


def test_before_anything_is_known_it_falls_with_age() -> None:
    hits = CacheHits()
    assert [hits.chance(A, age, 0.0) for age in AGES] == list(PRIORS)
    assert hits.chance(A, 0.0, 0.0) == PRIORS[0]
    assert hits.chance(A, 7201.0, 0.0) == LATER


SHOWN = [
    # tokens, expected to be cached, seconds, found
    (2000, 1900, 0.1, True),
    (2000, 1900, 2.0, False),
    (2000, 1000, 1.0, True),
    (2000, 1000, 1.6, False),
    (2000, 2500, 0.01, True),
    (2000, 500, 1.5, None),  # too small a share to be told apart
    (30, 15, 0.015, None),  # too short
    (2000, 1900, float("nan"), None),
    (2000, 1900, None, None),
]


@pytest.mark.parametrize(("tokens", "hit", "seconds", "found"), SHOWN)
def test_a_hit_shows_in_the_time_that_the_prompt_took(
    tokens: float, hit: float, seconds: float | None, found: bool | None
) -> None:
    assert CacheHits().learn(A, 10.0, tokens, hit, seconds, RATE, 0.0) is found


def test_a_few_misses_make_it_doubtful_on_that_server_and_at_that_age_only() -> None:
    hits = CacheHits()
    for _ in range(4):
        hits.learn(A, 10.0, 2000, 1900, 2.0, RATE, 0.0)
    assert hits.chance(A, 10.0, 0.0) == pytest.approx(0.45)
    assert hits.chance(A, 100.0, 0.0) == PRIORS[1]
    assert hits.chance(B, 10.0, 0.0) == PRIORS[0]


def test_it_converges_to_the_truth_under_noise() -> None:
    dice, hits = random.Random(1), CacheHits()
    for at in range(300):
        evaluated = 100 if dice.random() < 0.6 else 2000
        hits.learn(A, 20.0, 2000, 1900, evaluated / RATE * dice.lognormvariate(0.0, 0.2), RATE, at * 1.0)
    assert hits.chance(A, 20.0, 300.0) == pytest.approx(0.6, abs=0.08)


def test_misses_are_forgotten_without_traffic() -> None:
    hits = CacheHits()
    for _ in range(100):
        hits.learn(A, 10.0, 2000, 1900, 2.0, RATE, 0.0)
    assert hits.chance(A, 10.0, 0.0) < 0.05
    assert hits.chance(A, 10.0, 20 * 1800.0) == pytest.approx(PRIORS[0], rel=0.01)


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e5), st.floats()), max_size=20),
    st.floats(0, 1e4),
)
def test_a_chance_is_a_chance(samples: list[tuple[float, float, float, float]], age: float) -> None:
    hits = CacheHits()
    for each, tokens, hit, seconds in samples:
        hits.learn(A, each, tokens, hit, seconds, RATE, 0.0)
    assert 0.0 <= hits.chance(A, age, 1.0) <= 1.0


def test_plain_and_back_is_the_same() -> None:
    hits, back = CacheHits(), CacheHits()
    for _ in range(4):
        hits.learn(A, 10.0, 2000, 1900, 2.0, RATE, 0.0)
    back.load_plain(hits.to_plain(60.0, 100), 960.0)
    assert back.chance(A, 10.0, 960.0) == pytest.approx(hits.chance(A, 10.0, 60.0))


@pytest.mark.parametrize("data", [*JUNK, [["a", [[1.0, 9.0, 0.0], [], [], []]]]])
def test_junk_in_a_file_is_left_out(data: object) -> None:
    hits = CacheHits()
    hits.load_plain(data, 0.0)
    assert hits.chance(A, 10.0, 0.0) == PRIORS[0]
