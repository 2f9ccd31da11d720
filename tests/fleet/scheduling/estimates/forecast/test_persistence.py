"""What was learned survives a restart."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.persistence import restore, snapshot
from tests.fleet.scheduling.estimates.forecast.servers import ASKER, KnownServer, SimulatedFleet
from tests.fleet.scheduling.estimates.pairs import JUNK, A


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
    assert predicted(restore(data, 0.0, away=86400.0), 0.0) < 1.7 * fresh


def test_the_data_is_bounded_however_many_pairs_there_are() -> None:
    estimates = Estimates()
    for at in range(3000):
        pair = Pair(ServerId(f"s{at}"), ModelName(f"m{at}"))
        for _ in range(2):
            estimates.prefill.learn(pair, 10**9, 1, 1000, 1.0, 0.0)
            estimates.decode.learn(pair, 10**9, 0.0, 100, 1.0, 0.0)
            estimates.service.learn(pair, 3.0, 0.0)
            estimates.trust.learn(pair, 1.0, 1.1, 0.0)
    data = snapshot(estimates, 0.0)
    assert len(json.dumps(data)) < 2_000_000
    assert restore(data, 0.0).trust.of(Pair(ServerId("s2999"), ModelName("m2999"))) is not None  # the latest are kept


@pytest.mark.parametrize("data", [None, 3, [], {}, {"version": 2}, {"version": "1"}])
def test_what_is_no_snapshot_is_as_good_as_none(data: object) -> None:
    assert predicted(restore(data, 0.0), 0.0) == predicted(Estimates(), 0.0)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("away", [0.0, -5.0, math.inf, math.nan])
def test_junk_in_a_snapshot_is_left_out(junk: object, away: float) -> None:
    names = [name for name in snapshot(Estimates(), 0.0) if name != "version"]
    estimates = restore({"version": 1, **dict.fromkeys(names, junk)}, 0.0, away)
    assert 0.0 < predicted(estimates, 0.0) < 100.0


_scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
_list = st.lists(_scalar | st.lists(_scalar | st.lists(_scalar, max_size=3), max_size=5), max_size=6)
_row = st.sampled_from([["m:latest"], ["a", "m:latest"], ["a"], []]).flatmap(
    lambda names: _list.map(lambda known: [*names, known])
)
_NAMES = [name for name in snapshot(Estimates(), 0.0) if name != "version"]


@given(st.dictionaries(st.sampled_from(_NAMES), st.lists(_row, max_size=3), max_size=3))
def test_hostile_data_never_makes_predictions_absurd(data: dict[str, object]) -> None:
    estimates = restore({**data, "version": 1}, 0.0)
    assert 0.0 <= predicted(estimates, 0.0) < 1e8
