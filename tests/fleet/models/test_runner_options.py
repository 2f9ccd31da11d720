"""What clients ask for: the runner options to load with, embeddings or text, how long an answer takes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName
from fleet.models import runner_options as module
from fleet.models.runner_options import LATELY, Demand
from fleet.protocol.endpoints import ENDPOINTS, understand

M = ModelName("m:latest")
EIGHT: dict[str, object] = {"num_ctx": 8192}
FOUR: dict[str, object] = {"num_ctx": 4096}

OPTIONS = [
    # what clients used, oldest first; what a warm-up should use
    ([], {}),
    ([None], {}),
    ([EIGHT], EIGHT),
    ([EIGHT, None], {}),  # of equals, the latest
    ([None, EIGHT], EIGHT),
    ([EIGHT, EIGHT, FOUR], EIGHT),
    ([EIGHT] + [FOUR] * LATELY, FOUR),  # only the last few count
    ([FOUR] * LATELY + [EIGHT] * (LATELY // 2 + 1), EIGHT),
    ([{"shift": True}], {}),  # that is what a server does anyway
    ([{"shift": False}], {"shift": False}),
    ([{"num_gpu": 1, "num_ctx": 8192}, {"num_ctx": 8192, "num_gpu": 1}, EIGHT], {"num_ctx": 8192, "num_gpu": 1}),
]


@pytest.mark.parametrize(("used", "best"), OPTIONS)
def test_a_model_is_loaded_with_the_options_most_used_lately(
    used: list[dict[str, object] | None], best: dict[str, object]
) -> None:
    demand = Demand()
    for options in used:
        demand.note(M, options, embedding=False)
    assert demand.options(M) == best


@given(st.lists(st.one_of(st.none(), st.fixed_dictionaries({"num_ctx": st.integers(1, 3)})), min_size=1, max_size=40))
def test_the_options_are_the_most_common_of_the_last_few(used: list[dict[str, object] | None]) -> None:
    demand = Demand()
    for options in used:
        demand.note(M, options, embedding=False)
    lately = Counter(tuple((each or {}).items()) for each in used[-LATELY:])
    assert lately[tuple(demand.options(M).items())] == max(lately.values())


@pytest.mark.parametrize(
    ("kinds", "embeds"), [([], None), ([True], True), ([False], False), ([False, *[True] * LATELY], True)]
)
def test_a_model_embeds_if_that_is_all_that_is_asked_of_it_lately(kinds: list[bool], embeds: bool | None) -> None:
    demand = Demand()
    for kind in kinds:
        demand.note(M, None, embedding=kind)
    assert demand.embeds(M) is embeds


def test_seconds_follow_the_requests() -> None:
    demand = Demand()
    assert demand.seconds(M) is None
    demand.note_seconds(M, 10.0)
    assert demand.seconds(M) == 10.0
    for _ in range(50):
        demand.note_seconds(M, 2.0)
    assert demand.seconds(M) == pytest.approx(2.0, abs=0.01)
    demand.note_seconds(ModelName("n"), -1.0)
    assert demand.seconds(ModelName("n")) == 0.0


def test_what_was_not_asked_for_in_a_long_time_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MODELS", 3)
    demand = Demand()
    for name in ("a", "b", "c", "a", "d"):
        demand.note(ModelName(name), EIGHT, embedding=False)
    assert [demand.options(ModelName(name)) for name in "abcd"] == [EIGHT, {}, EIGHT, EIGHT]


BODIES = [
    # route, body, the runner options that are noted
    ("/api/chat", b'{"model":"m","options":{"num_ctx":8192,"temperature":1}}', EIGHT),
    ("/api/chat", b'{"model":"m","options":{"num_ctx":8192},"shift":false}', EIGHT | {"shift": False}),
    ("/api/generate", b'{"model":"m","options":{"temperature":1}}', None),
    ("/api/embed", b'{"model":"m","options":{"num_ctx":8192},"shift":false}', EIGHT),
    ("/v1/chat/completions", b'{"model":"m","options":{"num_ctx":8192}}', None),  # Ollama ignores them there
    ("/v1/messages", b'{"model":"m","options":{"num_ctx":8192}}', None),
    ("/api/chat", b"not json", None),
]


@pytest.mark.parametrize(("route", "body", "runner"), BODIES)
def test_only_options_that_ollama_would_heed_are_noted(
    route: str, body: bytes, runner: dict[str, object] | None
) -> None:
    assert understand(ENDPOINTS[route], body, []).runner == runner
