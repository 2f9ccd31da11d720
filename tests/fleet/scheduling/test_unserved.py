"""Which models clients were refused lately: bounded in number and in time."""

from __future__ import annotations

from fleet.common.ids import ModelName
from fleet.scheduling.unserved import LATELY, Unserved

M, N = ModelName("m"), ModelName("n")


def test_a_model_is_missed_for_some_seconds_after_somebody_was_refused_it() -> None:
    unserved = Unserved()
    assert not unserved.lately(None, 0.0)
    unserved.note(M, 10.0)
    assert unserved.lately({M}, 10.0 + LATELY)
    assert unserved.lately(None, 10.0 + LATELY)
    assert not unserved.lately({N}, 10.0)
    assert not unserved.lately({M}, 10.1 + LATELY)


def test_who_asks_again_is_missed_again_whoever_else_asked_in_between() -> None:
    unserved = Unserved()
    unserved.note(M, 0.0)
    unserved.note(N, 1.0)
    unserved.note(M, 2.0)
    assert unserved.lately({M}, 2.0 + LATELY)
    assert not unserved.lately({N}, 2.0 + LATELY)


def test_it_remembers_256_models_those_asked_for_last() -> None:
    unserved = Unserved()
    for n in range(300):
        unserved.note(ModelName(str(n)), float(n) / 1000)
    assert [unserved.lately({ModelName(str(n))}, 1.0) for n in (0, 43, 44, 299)] == [False, False, True, True]
