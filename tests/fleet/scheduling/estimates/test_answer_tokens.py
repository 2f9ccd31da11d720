"""How many tokens an answer will have."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.answer_tokens import LEAST, MOST, TOKENS, AnswerTokens
from tests.fleet.scheduling.estimates.pairs import JUNK, M, N

CHAT, TITLES, OTHER = ("ann", M, "/api/chat"), ("bob", M, "/api/generate"), ("ann", N, "/api/chat")


def test_before_anything_is_known_it_is_a_fixed_number_within_the_limits() -> None:
    estimate = AnswerTokens()
    assert estimate.tokens(CHAT, 0.0) == TOKENS
    assert estimate.tokens(CHAT, 0.0, num_predict=50) == 50
    assert estimate.tokens(CHAT, 0.0, num_predict=-1) == TOKENS
    assert estimate.tokens(CHAT, 0.0, room=30.0) == 30.0
    assert estimate.tokens(CHAT, 0.0, room=-5.0) == LEAST


def test_each_client_converges_to_its_own_mean() -> None:
    dice, estimate = random.Random(1), AnswerTokens()
    for at in range(300):
        estimate.learn(CHAT, round(dice.lognormvariate(6.0, 0.5)), at * 1.0)  # mean 457
        estimate.learn(TITLES, round(dice.lognormvariate(2.0, 0.3)), at * 1.0)  # mean 7.7
    assert estimate.tokens(CHAT, 300.0) == pytest.approx(457, rel=0.12)
    assert estimate.tokens(TITLES, 300.0) == pytest.approx(7.7, rel=0.2)


def test_a_new_client_is_taken_for_one_of_its_models() -> None:
    estimate = AnswerTokens()
    for _ in range(50):
        estimate.learn(CHAT, 1000, 0.0)
    assert 800 < estimate.tokens(("new", M, "/api/chat"), 0.0) < 1100
    assert estimate.tokens(OTHER, 0.0) == TOKENS


def test_one_answer_of_a_client_does_not_outweigh_all_others_of_the_model() -> None:
    estimate = AnswerTokens()
    for _ in range(50):
        estimate.learn(CHAT, 1000, 0.0)
    estimate.learn(TITLES, 10, 0.0)
    assert estimate.tokens(TITLES, 0.0) > 150


def test_without_traffic_it_drifts_back_to_the_unknown() -> None:
    estimate = AnswerTokens()
    for _ in range(50):
        estimate.learn(CHAT, 5, 0.0)
    assert estimate.tokens(CHAT, 0.0) < 10
    assert estimate.tokens(CHAT, 100 * 1800.0) == pytest.approx(TOKENS, rel=0.35)  # as widely spread as the unknown


@given(st.lists(st.one_of(st.integers(), st.floats(), st.none(), st.text()), max_size=20))
def test_no_sample_leads_out_of_bounds(samples: list[object]) -> None:
    estimate = AnswerTokens()
    for sample in samples:
        estimate.learn(CHAT, sample, 0.0)
    assert LEAST <= estimate.tokens(CHAT, 0.0) <= MOST


def test_clients_are_not_kept_over_a_restart_but_models_are() -> None:
    estimate, back = AnswerTokens(), AnswerTokens()
    for _ in range(50):
        estimate.learn(("secret-client", M, "/api/chat"), 1000, 0.0)
    plain = estimate.to_plain(0.0, 100)
    assert "secret-client" not in str(plain)
    back.load_plain(plain, 500.0)
    assert 800 < back.tokens(CHAT, 500.0) < 1100


@pytest.mark.parametrize("data", JUNK)
def test_junk_in_a_file_is_left_out(data: object) -> None:
    estimate = AnswerTokens()
    estimate.load_plain(data, 0.0)
    assert estimate.tokens(CHAT, 0.0) == TOKENS
