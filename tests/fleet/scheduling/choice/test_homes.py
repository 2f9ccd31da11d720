"""Where models are loaded, against the plain way of counting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.choice.homes import Homes

SERVERS, MODELS = [ServerId(each) for each in "abc"], [ModelName(each) for each in "mno"]
server, model, options = st.sampled_from(SERVERS), st.sampled_from(MODELS), st.integers(0, 2)
steps = st.one_of(
    st.tuples(st.just("put"), server, st.dictionaries(model, options)),
    st.tuples(st.just("add"), server, model, options),
    st.tuples(st.just("drop"), server, model),
    st.tuples(st.just("forget"), server),
)


@given(st.lists(steps, max_size=30))
def test_they_count_as_a_walk_over_all_servers_would(happens: list[tuple[object, ...]]) -> None:
    homes, plain = Homes(), dict[ServerId, dict[ModelName, int]]()
    for what, *given_ in happens:
        getattr(homes, str(what))(*given_)
        _plainly(plain, str(what), given_)
    for here in SERVERS:
        for wanted in MODELS:
            mine = plain.get(here, {}).get(wanted)
            rest = [held[wanted] for there, held in plain.items() if there != here and wanted in held]
            assert homes.others(here, wanted) == len(rest)
            assert homes.others_alike(here, wanted) == (0 if mine is None else rest.count(mine))


def _plainly(plain: dict[ServerId, dict[ModelName, int]], what: str, given_: list[object]) -> None:
    here = plain.setdefault(ServerId(str(given_[0])), {})
    if what in ("put", "forget"):
        here.clear()
    if what == "put":
        assert isinstance(given_[1], dict)
        here.update(given_[1])
    elif what == "add":
        here[ModelName(str(given_[1]))] = int(str(given_[2]))
    elif what == "drop":
        here.pop(ModelName(str(given_[1])), None)
