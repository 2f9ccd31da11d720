"""One word for a server, and one sum of its video memory."""

from __future__ import annotations

import pytest

from fleet.common.ids import ModelName
from fleet.scheduling.server_state import Admin, Health
from fleet.scheduling.server_words import API, DASHBOARD, METRICS, PLANNED, all_of, word_of
from tests.fleet.builders import make_server


@pytest.mark.parametrize("words", [API, METRICS, DASHBOARD])
def test_the_operators_word_comes_before_the_probes(words: dict[Health, str]) -> None:
    state = make_server("a")
    for state.admin in Admin:
        for state.health in Health:
            word = word_of(state, words)
            assert word in all_of(words)
            assert (word in PLANNED) == (state.admin is not Admin.ACTIVE)


def test_the_words_are_those_that_were_promised() -> None:
    assert all_of(API) == ("healthy", "unhealthy", "unknown", "draining", "drained", "maintenance")
    assert all_of(METRICS) == ("ok", "down", "unknown", "draining", "drained", "maintenance")
    assert all_of(DASHBOARD) == ("ok", "crit", "unknown", "draining", "drained", "maintenance")


@pytest.mark.parametrize(
    ("sizes", "total"),
    [([], 0), ([5, 7], 12), ([5, None, "7", -3, 1.5], 5), ([2**60, 3], 3)],
)
def test_only_sizes_that_can_be_some_are_added_up(sizes: list[object], total: int) -> None:
    state = make_server("a")
    state.resident = {ModelName(f"m{at}"): {"size_vram": size} for at, size in enumerate(sizes)}
    assert state.vram == total
