"""What people have stood for: it grows while they wait, fades, and is spent at once."""

from __future__ import annotations

import pytest

from fleet.common.model_names import canonical
from fleet.scheduling.choice.rents import Rents
from fleet.scheduling.wait_queue import TicketKind

M = TicketKind(canonical("m"), 0, alone=False)
OTHER = TicketKind(canonical("m"), 1, alone=False)


def test_it_grows_by_as_many_seconds_a_second_as_people_wait() -> None:
    rents = Rents()
    rents.came(M, 0.0)
    rents.came(M, 1.0)
    saved, waiting = rents.saved(M, 2.0)
    assert saved == pytest.approx(3.0, rel=0.01)
    assert waiting == 2
    rents.went(M, 2.0)
    rents.went(M, 2.0)
    assert rents.saved(M, 2.0) == (saved, 0)


def test_half_of_it_is_forgotten_in_two_minutes_and_who_waits_alone_saves_up_three() -> None:
    rents = Rents()
    rents.came(M, 0.0)
    rents.went(M, 10.0)
    saved, _ = rents.saved(M, 10.0)
    assert rents.saved(M, 130.0)[0] == pytest.approx(saved / 2)
    rents.came(M, 200.0)
    assert 150.0 < rents.saved(M, 900.0)[0] < 180.0


def test_what_is_spent_is_gone_and_who_still_waits_saves_again() -> None:
    rents = Rents()
    rents.came(M, 0.0)
    rents.saved(M, 10.0)
    rents.spent(M)
    assert rents.saved(M, 10.0) == (0.0, 1)
    assert rents.saved(M, 11.0)[0] == pytest.approx(1.0, rel=0.01)


def test_runners_have_accounts_of_their_own_and_a_model_is_the_sum_of_those_who_wait() -> None:
    rents = Rents()
    rents.came(M, 0.0)
    rents.came(OTHER, 0.0)
    assert (rents.waiting(M), rents.waiting(OTHER), rents.waiting(M.model)) == (1, 1, 2)
    rents.went(OTHER, 1.0)
    assert (rents.waiting(OTHER), rents.waiting(M.model)) == (0, 1)
    assert rents.saved(TicketKind(canonical("x"), 0, alone=False), 1.0) == (0.0, 0)
