"""How many tokens a prompt has."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.prompt_tokens import LEAST, MOST, PER_BYTE, PromptTokens
from tests.fleet.scheduling.estimates.pairs import JUNK, M, N


def test_before_anything_is_known_it_is_a_share_of_the_bytes() -> None:
    assert PromptTokens().tokens(M, 1000, 0.0) == pytest.approx(280.0)
    assert PromptTokens().tokens(M, 0, 0.0) == 1.0


def test_it_converges_to_the_models_own_ratio_under_noise() -> None:
    dice, estimate = random.Random(1), PromptTokens()
    for at in range(100):
        size = dice.randrange(500, 20_000)
        estimate.learn(M, size, round(size * 0.45 * dice.lognormvariate(0.0, 0.2)), at * 1.0)
    assert estimate.per_byte(M, 100.0) == pytest.approx(0.45, rel=0.08)
    assert estimate.per_byte(N, 100.0) == PER_BYTE


def test_small_bodies_are_mostly_frame_and_say_little() -> None:
    small, large = PromptTokens(), PromptTokens()
    small.learn(M, 60, 60, 0.0)
    large.learn(M, 6000, 6000, 0.0)
    assert PER_BYTE < small.per_byte(M, 0.0) < 0.31
    assert large.per_byte(M, 0.0) == pytest.approx(math.sqrt(PER_BYTE))


def test_without_traffic_it_drifts_back_to_the_unknown() -> None:
    estimate = PromptTokens()
    for _ in range(20):
        estimate.learn(M, 1024, 1024, 0.0)
    assert estimate.per_byte(M, 0.0) > 0.9
    assert estimate.per_byte(M, 100 * 3600.0) == pytest.approx(PER_BYTE, rel=1e-6)


@given(st.lists(st.tuples(st.integers(-5, 2**40), st.one_of(st.integers(), st.floats(), st.none()))))
def test_no_sample_leads_out_of_bounds(samples: list[tuple[int, object]]) -> None:
    estimate = PromptTokens()
    for size, tokens in samples:
        estimate.learn(M, size, tokens, 0.0)
    assert LEAST <= estimate.per_byte(M, 1.0) <= MOST
    assert estimate.tokens(M, 2**50, 1.0) <= 1e7


def test_plain_and_back_is_the_same() -> None:
    estimate, back = PromptTokens(), PromptTokens()
    estimate.learn(M, 2000, 900, 0.0)
    back.load_plain(estimate.to_plain(10.0, 100), 5010.0)
    assert back.per_byte(M, 5020.0) == pytest.approx(estimate.per_byte(M, 20.0))


@pytest.mark.parametrize("data", JUNK)
def test_junk_in_a_file_is_left_out(data: object) -> None:
    estimate = PromptTokens()
    estimate.load_plain(data, 0.0)
    assert estimate.to_plain(0.0, 100) == []
