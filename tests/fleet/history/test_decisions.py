from __future__ import annotations

from dataclasses import dataclass

import pytest

from fleet.history.decisions import effects, parts_of, position_of, selections


@dataclass(frozen=True)
class Decided:
    candidates: tuple[tuple[str, tuple[float, ...]], ...]
    model: str = "m"
    policy: str = "weighted"
    parts: tuple[str, ...] = ("latency", "load")

    @property
    def chosen(self) -> str:
        return self.candidates[0][0]


BOTH = Decided((("a", (3.0, 1.0)), ("b", (1.0, 2.0))))
ALONE = Decided((("b", ()),), model="n")


def test_how_often_each_server_was_chosen() -> None:
    found = selections([BOTH, BOTH, ALONE])
    assert (found["a"].total, found["a"].by_model, found["a"].scores) == (2, {"m": 2}, [4.0, 4.0])
    assert (found["b"].total, found["b"].by_model, found["b"].scores) == (1, {"n": 1}, [])


def test_the_place_of_a_server_is_by_its_score() -> None:
    assert [position_of(BOTH, server) for server in ("a", "b", "c")] == [1, 2, None]
    assert position_of(ALONE, "b") is None
    assert parts_of(BOTH, "b") == (1.0, 2.0)


def test_a_part_changed_what_would_have_gone_elsewhere_without_it() -> None:
    found = effects([BOTH, BOTH, ALONE])
    assert {name: (each.compared, each.changed) for name, each in found.items()} == {"latency": (2, 2), "load": (2, 0)}


def test_a_correlation_is_told_of_enough_candidates_that_differ() -> None:
    assert effects([BOTH] * 9)["latency"].correlation is None
    found = effects([BOTH] * 10)
    assert found["latency"].correlation == pytest.approx(1.0)
    assert found["load"].correlation == pytest.approx(-1.0)
    same = Decided((("a", (1.0, 1.0)), ("b", (1.0, 0.0))))
    assert effects([same] * 20)["latency"].correlation is None
