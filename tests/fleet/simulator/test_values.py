"""The simulator's small parts: names, sizes, durations, options, words, prefixes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.simulator import (
    Ask,
    BadDuration,
    BadOption,
    InvalidName,
    Profile,
    RunnerOptions,
    answer,
    embedding,
    keep_alive_seconds,
    model_file,
    parse_models,
    parse_size,
    rfc3339,
    short_name,
    work_for,
)
from fleet.simulator.prefix import PrefixCache

LLAMA = model_file("llama3:8b", 4_700_000_000)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("llama3", "llama3:latest"),
        (" tiny ", "tiny:latest"),
        ("registry.ollama.ai/library/x:1b", "x:1b"),
        ("me/x", "me/x:latest"),
        ("x:1b:local", "x:1b"),
        ("hf.co/me/x:Q4", "hf.co/me/x:Q4"),
    ],
)
def test_names_get_their_defaults(text: str, short: str) -> None:
    assert short_name(text) == short


@pytest.mark.parametrize("text", ["", "a b", "x@sha256:00", ":x", "a/b/c/d"])
def test_impossible_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        short_name(text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 300.0), (10, 10.0), (0, 0.0), (-1, math.inf), (1.5, 1.5), ("5m", 300.0), ("1h30m", 5400.0),
        ("-1s", math.inf), ("0", 0.0), ("1.5s", 1.5), ("250ms", 0.25),
    ],
)  # fmt: skip
def test_keep_alive_is_a_number_or_a_go_duration(value: object, seconds: float) -> None:
    assert keep_alive_seconds(value, 300.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("", 'time: invalid duration ""'),
        ("soon", 'time: invalid duration "soon"'),
        ("3x", 'time: unknown unit "x" in duration "3x"'),
    ],
)
def test_other_strings_get_the_complaint_of_go(value: str, complaint: str) -> None:
    with pytest.raises(BadDuration, match=complaint.replace("(", r"\(")):
        keep_alive_seconds(value, 300.0)


def test_model_lists_name_models_tags_and_sizes() -> None:
    files = parse_models("llama3:8b:4.7GB, nomic-embed-text:latest:274MB,phi:3b,plain")
    assert [(f.name, f.size) for f in files] == [
        ("llama3:8b", 4_700_000_000),
        ("nomic-embed-text:latest", 274_000_000),
        ("phi:3b", 4_700_000_000),
        ("plain:latest", 4_700_000_000),
    ]
    assert [f.embeds_only for f in files] == [False, True, False, False]


def test_sizes_need_a_number() -> None:
    assert parse_size("24GB") == 24 * 10**9
    with pytest.raises(ValueError, match="not a size"):
        parse_size("big")


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({}, True), ({"num_ctx": 4096}, True), ({"temperature": 0.1, "num_keep": 4}, True), ({"num_ctx": 512}, False),
        ({"num_batch": 64}, False), ({"num_thread": 2}, False), ({"num_gpu": 0}, True), ({"use_mmap": False}, False),
    ],
)  # fmt: skip
def test_only_some_options_need_another_runner(options: dict[str, object], same: bool) -> None:
    work = work_for(LLAMA, Profile(), Ask("x", options))
    assert (work.options == RunnerOptions()) is same


def test_the_context_is_clamped_to_what_the_model_was_trained_for() -> None:
    bert = model_file("bert", 10**8)
    assert work_for(bert, Profile(), Ask("x", {"num_ctx": 9000})).options.num_ctx == 2048


def test_options_of_the_wrong_type_are_named() -> None:
    with pytest.raises(BadOption, match='option "num_ctx" must be of type integer'):
        work_for(LLAMA, Profile(), Ask("x", {"num_ctx": "big"}))


@given(prompt=st.text(min_size=1), seed=st.integers(), limit=st.integers(1, 200))
def test_the_same_question_gets_the_same_answer_of_the_wanted_length(prompt: str, seed: int, limit: int) -> None:
    first = answer("w", prompt, seed, limit, as_json=False)
    assert first == answer("w", prompt, seed, limit, as_json=False)
    assert len(first) == limit
    assert first[0] == "Simulated"


def test_without_a_limit_answers_have_a_natural_length() -> None:
    lengths = {len(answer("w", str(n), 0, None, as_json=False)) for n in range(50)}
    assert lengths <= set(range(16, 33))
    assert len(lengths) > 1


def test_embeddings_are_unit_vectors() -> None:
    vector = embedding("w", "x", 64)
    assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-5)
    assert vector == embedding("w", "x", 64)


@given(head=st.text(max_size=300), one=st.text(max_size=300), other=st.text(max_size=300))
def test_the_cache_never_claims_more_than_the_common_prefix(head: str, one: str, other: str) -> None:
    cache = PrefixCache()
    cache.remember(head + one)
    common = cache.common(head + other)
    assert (head + other)[:common] == (head + one)[:common]
    assert cache.common(head + one) == len(head + one)
    assert common >= len(head) // 64 * 64


def test_the_cache_forgets_what_is_longest_unused() -> None:
    cache = PrefixCache(blocks=10)
    cache.remember("a" * 640)
    cache.remember("b" * 640)
    assert cache.common("a" * 640) == 0
    assert cache.common("b" * 640) == 640


def test_times_are_written_as_go_writes_them() -> None:
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500000Z"
