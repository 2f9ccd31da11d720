"""What was learned survives a restart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.estimates.evictions import Evictions
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.persistence import ESTIMATORS, LearnedRows, Wanted
from tests.fleet.scheduling.estimates.forecast.servers import ASKER, KnownServer, SimulatedFleet
from tests.fleet.scheduling.estimates.pairs import JUNK, A, B


def everything(server: ServerId | None, model: ModelName | None) -> bool:
    return True


def snapshot(estimates: Estimates, now: float, wanted: Wanted = everything) -> dict[str, list[list[object]]]:
    rows = LearnedRows(estimates, Evictions())
    return {name: rows.snapshot(name, now, wanted) for name in ESTIMATORS}


def restore(data: Mapping[str, list[list[object]]], then: float, wanted: Wanted = everything) -> Estimates:
    estimates = Estimates()
    rows = LearnedRows(estimates, Evictions())
    for name, known in data.items():
        rows.restore(name, list[object](known), then, wanted)
    return estimates


def predicted(estimates: Estimates, now: float) -> float:
    return estimates.predict(estimates.profile(ASKER, 2000, now), KnownServer(A), now).done


def taught() -> SimulatedFleet:
    fleet = SimulatedFleet()
    for _ in range(30):
        fleet.serve(KnownServer(A), rate=50.0, step=0.3)
    return fleet


def test_predictions_are_the_same_after_a_restart_through_a_file() -> None:
    fleet = taught()
    data = json.loads(json.dumps(snapshot(fleet.estimates, fleet.now)))
    assert predicted(restore(data, 7.0), 7.0) == pytest.approx(predicted(fleet.estimates, fleet.now), rel=0.1)


def test_what_was_learned_fades_for_the_time_in_between() -> None:
    fleet = taught()
    data = snapshot(fleet.estimates, fleet.now)
    fresh = predicted(Estimates(), 0.0)
    assert predicted(restore(data, 0.0), 0.0) > 4 * fresh
    assert predicted(restore(data, -86400.0), 0.0) < 1.7 * fresh


def taught_of(many: int, name: str = "") -> Estimates:
    estimates = Estimates()
    for at in range(many):
        pair = Pair(ServerId(f"s{at}{name}"), ModelName(f"m{at}{name}"))
        for _ in range(2):
            estimates.prefill.learn(pair, 10**9, 1, 1000, 1.0, 0.0)
            estimates.decode.learn(pair, 10**9, 0.0, 100, 1.0, 0.0)
            estimates.service.learn(pair, 3.0, 0.0)
            estimates.trust.learn(pair, 1.0, 1.1, 0.0)
    return estimates


def test_the_data_is_bounded_however_many_pairs_there_are() -> None:
    data = snapshot(taught_of(3000), 0.0)
    assert len(json.dumps(data)) < 2_000_000
    assert restore(data, 0.0).trust.of(Pair(ServerId("s2999"), ModelName("m2999"))) is not None  # the latest are kept


def test_the_data_is_bounded_however_long_names_are() -> None:
    data = snapshot(taught_of(1000, "x" * 1000), 0.0)
    assert max(len(json.dumps(rows)) for rows in data.values()) < 1_000_000
    assert str(data["trust"][-1][0]).startswith("s999x")


def test_what_nobody_wants_is_neither_kept_nor_learned_again() -> None:
    estimates = Estimates()
    for pair in (Pair(A, ModelName("m")), Pair(B, ModelName("m")), Pair(A, ModelName("n"))):
        estimates.trust.learn(pair, 1.0, 1.5, 0.0)
        estimates.service.learn(pair, 1.0, 0.0)

    def wanted(server: ServerId | None, model: ModelName | None) -> bool:
        return server in (None, A) and model in (None, "m")

    kept = snapshot(estimates, 0.0, wanted)
    assert [row[:2] for row in kept["trust"]] == [[A, "m"]]
    assert [row[0] for row in kept["service"]] == ["m", ""]
    again = restore(snapshot(estimates, 0.0), 0.0, wanted)
    assert again.trust.of(Pair(A, ModelName("m"))) is not None
    assert again.trust.of(Pair(B, ModelName("m"))) is None


def test_other_names_are_nobodys() -> None:
    with pytest.raises(KeyError):
        restore({"failures": []}, 0.0)


@pytest.mark.parametrize("junk", [junk for junk in JUNK if isinstance(junk, list)])
@pytest.mark.parametrize("then", [0.0, -1e9, -math.inf])
def test_junk_in_a_snapshot_is_left_out(junk: list[list[object]], then: float) -> None:
    estimates = restore(dict.fromkeys(ESTIMATORS, junk), then)
    assert 0.0 < predicted(estimates, 0.0) < 100.0


_scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
_list = st.lists(_scalar | st.lists(_scalar | st.lists(_scalar, max_size=3), max_size=5), max_size=6)
_row = st.sampled_from([["m:latest"], ["a", "m:latest"], ["a"], []]).flatmap(
    lambda names: _list.map(lambda known: [*names, known])
)


@given(st.dictionaries(st.sampled_from(ESTIMATORS), st.lists(_row, max_size=3), max_size=3))
def test_hostile_data_never_makes_predictions_absurd(data: dict[str, list[list[object]]]) -> None:
    assert 0.0 <= predicted(restore(data, 0.0), 0.0) < 1e8
