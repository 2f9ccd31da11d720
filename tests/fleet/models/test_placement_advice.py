"""Which models should be loaded, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, ServerId
from fleet.models.placement_advice import OFTEN, SHARE, ModelUse, Place, advise

M = ModelName("m:latest")


def places(*servers: str, slots: int = 4) -> list[Place]:
    return [Place(ServerId(server), slots) for server in servers]


TABLE = [
    # requests in the last hour, in the last five minutes, seconds of one, loaded on, loadable on, suggested
    (0, 0, 10.0, "", "ab", None),  # nobody asked
    (OFTEN - 1, 0, 10.0, "", "ab", None),
    (OFTEN, 0, 10.0, "", "ab", "a"),  # in no server's memory
    (OFTEN, 0, None, "", "ab", "a"),
    (OFTEN, 0, 10.0, "", "", None),  # nowhere to load it
    (OFTEN, 0, 10.0, "a", "b", None),  # one is enough
    (3600, 0, 2.8, "a", "bc", None),  # 2.8 at once are 70 % of four slots
    (3600, 0, 2.9, "a", "bc", "b"),
    (3600, 0, 6.0, "a", "bc", "bc"),
    (3600, 0, 99.0, "a", "bc", "bc"),  # never more than there are
    (3600, 0, 99.0, "abc", "", None),
    (3600, 0, 6.0, "", "abcd", "abc"),
    (300, 300, 1.0, "a", "b", None),  # a minute ago it began: 1 a second
    (300, 300, 2.9, "a", "b", "b"),
]


@pytest.mark.parametrize(("hour", "lately", "seconds", "loaded", "loadable", "suggested"), TABLE)
def test_a_model_is_recommended_while_its_load_is_too_much_for_those_that_have_it(
    hour: int, lately: int, seconds: float | None, loaded: str, loadable: str, suggested: str | None
) -> None:
    advice = advise(ModelUse(M, hour, lately, seconds, places(*loaded), places(*loadable)))
    assert (None if advice is None else "".join(advice.suggested)) == suggested


def test_the_reason_says_the_figures() -> None:
    nowhere = advise(ModelUse(M, 12, 0, 10.0, [], places("a")))
    few = advise(ModelUse(M, 3600, 0, 2.94, places("a"), places("b")))
    assert nowhere is not None
    assert few is not None
    assert nowhere.reason == "asked for 12 times in the last hour, and in no usable server's memory"
    assert "asked for 3600 times in the last hour; about 2.9 requests run at once" in few.reason
    assert "more than 70% of the 4 slots of the one server that has it in memory" in few.reason


_place = st.builds(Place, st.from_regex("[a-z]{1,3}", fullmatch=True).map(ServerId), st.integers(0, 8))
_places = st.lists(_place, max_size=6, unique_by=lambda place: place.server)
_standings = st.builds(
    ModelUse,
    model=st.just(M),
    hour=st.integers(0, 10_000),
    lately=st.integers(0, 1000),
    seconds=st.one_of(st.none(), st.floats(0, 1000)),
    loaded=_places,
    loadable=_places,
)


@given(_standings)
def test_nothing_is_recommended_that_nobody_asked_for_or_that_is_loaded_wherever_it_can_be(standing: ModelUse) -> None:
    advice = advise(standing)
    if not standing.hour or not standing.loadable:
        assert advice is None
    if advice is not None:
        offered = [place.server for place in standing.loadable]
        assert advice.suggested
        assert list(advice.suggested) == offered[: len(advice.suggested)]


@given(_standings)
def test_no_more_servers_are_suggested_than_the_load_needs(standing: ModelUse) -> None:
    advice = advise(standing)
    if advice is not None and len(advice.suggested) > 1:
        one_less = [*standing.loaded, *standing.loadable[: len(advice.suggested) - 1]]
        assert standing.load > SHARE * sum(place.slots for place in one_less)
