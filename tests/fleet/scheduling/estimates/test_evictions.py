"""Whom a load throws out, and what that costs others."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, ServerId
from fleet.common.model_names import canonical
from fleet.scheduling.estimates.evictions import HORIZON, Evictions, Resident, residents_of

A = ServerId("a")
GB = 1e9


def name(model: str) -> ModelName:
    return canonical(model)


def rows(*models: tuple[str, float, float]) -> list[Resident]:
    """Model, gigabytes, and when it expires."""
    return [Resident(name(model), size * GB, expires_at) for model, size, expires_at in models]


def who(evictions: Evictions, model: str, size: float, *busy: str) -> list[str]:
    victims = evictions.victims(A, name(model), size * GB, {name(each) for each in busy})
    return [victim.split(":")[0] for victim in victims]


def test_a_server_is_taken_to_have_room_until_it_showed_its_edge() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 300)), 0.0)
    assert who(evictions, "n", 10) == []
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 310)), 10.0)
    assert who(evictions, "o", 10) == []


def test_one_that_is_gone_before_its_time_when_another_came_shows_the_edge() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 310)), 10.0)
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320)), 20.0)
    assert who(evictions, "m", 10) == ["n"]
    assert who(evictions, "n", 10) == []
    assert who(evictions, "tiny", 0.0) == [], "memory was short, not the number of models"


def test_one_that_goes_while_our_load_is_under_way_shows_the_edge_too() -> None:
    """A server may show a model only when it is loaded, and its victim goes before that."""
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 310)), 10.0)
    evictions.seen(A, rows(("n", 10, 310)), 20.0, [name("o")])
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320)), 30.0)
    assert who(evictions, "m", 10) == ["n"]


def test_one_whose_time_was_over_shows_nothing() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 15), ("n", 10, 310)), 10.0)
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320)), 20.0)
    assert who(evictions, "m", 10) == []


def test_where_memory_was_enough_before_it_is_the_number_of_models() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("big", 50, 300)), 0.0)
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 310)), 400.0)
    evictions.seen(A, rows(("n", 10, 810), ("m", 10, 800)), 500.0)
    evictions.seen(A, rows(("n", 10, 810), ("o", 10, 820)), 510.0)
    assert who(evictions, "tiny", 0.1) == ["n"]


def test_more_seen_together_moves_the_edge() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 310)), 10.0)
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320)), 20.0)
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320), ("m", 10, 330)), 30.0)
    evictions.seen(A, rows(("n", 10, 310)), 40.0)
    assert who(evictions, "p", 10) == []


def test_idle_ones_go_first_those_that_expire_first_among_them() -> None:
    evictions = Evictions()
    full = rows(("m", 10, 300), ("n", 10, 310), ("o", 10, 320))
    evictions.seen(A, full, 10.0)
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320), ("p", 10, 400)), 20.0)
    assert who(evictions, "x", 15, "n") == ["o", "p"]
    assert who(evictions, "m", 10, "n", "o", "p") == ["n"]


def test_a_model_that_was_seen_loaded_needs_what_it_took_then() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 20, 300)), 0.0)
    evictions.seen(A, rows(("n", 10, 300), ("o", 10, 300)), 400.0)
    evictions.seen(A, rows(("o", 10, 800), ("p", 10, 800)), 450.0)
    evictions.seen(A, rows(("p", 10, 800), ("q", 10, 800)), 460.0)
    assert who(evictions, "m", 1) == ["p", "q"]


def test_what_others_lose_is_what_their_next_requests_lose_as_far_as_they_come_soon() -> None:
    evictions, victim = Evictions(), name("m")
    assert evictions.loss(victim, 15.0, 0, 0.0, elsewhere=False) == 0.0
    for second in range(0, 120, 10):
        evictions.asked(victim, float(second))
    rate = evictions.rate(victim, 120.0)
    busy = evictions.loss(victim, 15.0, 0, 120.0, elsewhere=False)
    assert busy == pytest.approx(15.0 * (1.0 - math.exp(-120.0 * rate)) + rate * 15.0**2 / 2)
    assert evictions.loss(victim, 15.0, 3, 120.0, elsewhere=False) == pytest.approx(busy + 3 * 15.0)
    assert evictions.loss(victim, 15.0, 0, 120.0, elsewhere=True) == pytest.approx(busy / 4)
    later = evictions.loss(victim, 15.0, 0, 120.0 + 40 * HORIZON, elsewhere=False)
    assert later < 0.01, "who is not asked for any more is nobody's loss"


def test_what_has_changed_since_the_last_look_counts() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 400)), 0.0)
    evictions.seen(A, rows(("n", 10, 400), ("o", 10, 500)), 10.0)
    assert who(evictions, "m", 10) == ["n"]
    gone = {name("n")}
    assert evictions.victims(A, name("m"), 10 * GB, set(), gone) == [], "its place is free"
    assert evictions.victims(A, name("n"), 10 * GB, set(), gone, {name("m")}) == [name("o")]
    assert evictions.victims(A, name("n"), 10 * GB, {name("o")}, gone, {name("m")}) == [name("m")]


def test_rows_of_ps_become_residents_and_absurd_ones_take_no_room() -> None:
    found = residents_of(
        {name("m"): {"size_vram": 5 * GB, "expires_at": "x"}, name("n"): {"size_vram": "lots"}}, lambda text: 7.0
    )
    assert found == [Resident(name("m"), 5 * GB, 7.0), Resident(name("n"), 0.0, 7.0)]


@pytest.mark.parametrize(
    "data", [None, {}, [[1, 2]], [["a", ["x", 1, None, None]]], [["a", [-1, 1, None, None]]], [["a", [1]]], [[]] * 3]
)
def test_what_was_kept_and_is_absurd_is_left_out(data: object) -> None:
    evictions = Evictions()
    evictions.load_plain(data, 0.0)
    assert evictions.to_plain(0.0, 9) == []


def test_what_was_learned_survives_a_restart() -> None:
    evictions = Evictions()
    evictions.seen(A, rows(("m", 10, 300), ("n", 10, 310)), 10.0)
    evictions.seen(A, rows(("n", 10, 310), ("o", 10, 320)), 20.0)
    again = Evictions()
    again.load_plain(json.loads(json.dumps(evictions.to_plain(20.0, 9))), 20.0)
    again.seen(A, rows(("n", 10, 310), ("o", 10, 320)), 30.0)
    assert who(again, "m", 8) == ["n"]


def edges_of(evictions: Evictions) -> tuple[object, object]:
    for _, known in evictions.to_plain(0.0, 1):
        assert isinstance(known, list)
        return known[2], known[3]
    return None, None


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("mnop"), st.floats(0, 80), st.floats(0, 1e4)), max_size=4), max_size=12
    ),
    st.floats(0, 80),
)
def test_with_the_victims_gone_there_is_room(looks: list[list[tuple[str, float, float]]], size: float) -> None:
    evictions = Evictions()
    for at, look in enumerate(looks):
        evictions.seen(A, rows(*{each[0]: each for each in look}.values()), float(at * 100))
    edge_bytes, edge_models = edges_of(evictions)
    victims = evictions.victims(A, name("new"), size * GB, set())
    if not victims:
        return
    assert edge_bytes is not None or edge_models is not None, "nobody goes from a server that never showed an edge"
    last = {name(each[0]): each[1] * GB for each in looks[-1]}
    left = sum(last.values()) - sum(last[victim] for victim in victims)
    fits = edge_bytes is None or left + size * GB * 1.15 <= float(str(edge_bytes)) + 1.0
    assert fits or len(victims) == len(last)
