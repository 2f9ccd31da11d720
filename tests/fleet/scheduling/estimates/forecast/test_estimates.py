"""What a request would cost on a server, and what is learned from it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.affinity.prompt_links import PromptLink
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.terms import Footing, Terms
from fleet.scheduling.estimates.lmetric import lmetric
from tests.fleet.scheduling.estimates.forecast.servers import ASKER, KnownServer, SimulatedFleet, Told
from tests.fleet.scheduling.estimates.pairs import AM, A, B, M, N

CHAT = [PromptLink(1, 400), PromptLink(2, 1900)]


def test_a_prediction_is_the_sum_of_its_terms_with_the_correction_on_what_is_served() -> None:
    terms = Terms(5.0, 10.0, 2.0, 4.0, 700.0, Footing(1.5, True, 0.25, 1.0))
    assert terms.first_token == 5.0 + 12.0 * 1.5
    assert terms.done == 5.0 + 16.0 * 1.5
    assert terms.risk(7.0) == 2.0


def test_predictions_converge_to_the_truth_of_each_server() -> None:
    fleet, fast, slow = SimulatedFleet(), KnownServer(A), KnownServer(B)
    for _ in range(30):
        fleet.serve(fast, rate=2000.0, step=0.01)
        fleet.serve(slow, rate=300.0, step=0.08)
    for server, prefill, decode in ((fast, 0.3, 1.0), (slow, 2.0, 8.0)):
        terms = fleet.serve(server, rate=600 / prefill, step=decode / 100)
        assert terms.wait == terms.load == 0.0
        assert terms.prefill == pytest.approx(prefill, rel=0.15)
        assert terms.decode == pytest.approx(decode, rel=0.15)
        assert terms.done == pytest.approx(prefill + decode, rel=0.15)
        assert terms.footing.reliable
    error = fleet.estimates.errors.accuracy["done"].error(fleet.now)
    assert error is not None
    assert error < 0.2


def test_a_server_of_which_nothing_is_known_is_expected_to_be_fast_so_it_is_tried() -> None:
    fleet = SimulatedFleet()
    for _ in range(10):
        fleet.serve(KnownServer(A), rate=100.0, step=0.2)
    request = fleet.estimates.profile(ASKER, 2000, fleet.now)
    known = fleet.estimates.predict(request, KnownServer(A), fleet.now)
    unknown = fleet.estimates.predict(request, KnownServer(B), fleet.now)
    assert unknown.done <= known.done * 1.05


def test_a_slow_hour_is_forgotten_without_traffic() -> None:
    fleet = SimulatedFleet()
    for _ in range(20):
        fleet.serve(KnownServer(A), rate=10.0, step=2.0)
    request = fleet.estimates.profile(ASKER, 2000, fleet.now)
    assert fleet.estimates.predict(request, KnownServer(A), fleet.now).done > 100.0
    later = fleet.now + 12 * 3600.0
    fresh = fleet.estimates.profile(ASKER, 2000, later)
    assert fleet.estimates.predict(fresh, KnownServer(A), later).done < 15.0


def test_failures_enter_no_times_and_a_server_that_fails_fast_does_not_look_fast() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A)
    fleet.serve(server)
    before = fleet.estimates.predict(fleet.estimates.profile(ASKER, 2000, fleet.now), server, fleet.now)
    for _ in range(10):
        fleet.serve(server, tokens=1, answer=1, rate=1e5, step=0.001, outcome="failed")
    request = fleet.estimates.profile(ASKER, 2000, fleet.now)
    terms = fleet.estimates.predict(request, server, fleet.now)
    assert terms.done == pytest.approx(before.done, rel=0.05)
    assert terms.footing.failing > 0.7
    assert terms.risk(10.0) > 7.0
    assert fleet.estimates.predict(request, server, fleet.now + 600.0).footing.failing < 0.01


def test_a_client_that_left_says_nothing() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A)
    request = fleet.estimates.profile(ASKER, 2000, 0.0)
    before = fleet.estimates.predict(request, server, 0.0)
    fleet.serve(server, rate=1.0, step=5.0, outcome="left")
    after = fleet.estimates.predict(fleet.estimates.profile(ASKER, 2000, fleet.now), server, fleet.now)
    assert after == before


def test_a_runner_that_is_not_there_costs_its_load_once_what_must_leave_first_is_idle() -> None:
    fleet, cold = SimulatedFleet(), KnownServer(A, loaded=set())
    terms = fleet.serve(cold, load=12.0)
    assert terms.load == pytest.approx(5.0)  # by its size
    estimates, later = fleet.estimates, fleet.now + 2000.0
    request = estimates.profile(ASKER, 2000, later)
    idle = estimates.predict(request, cold, later)
    assert idle.wait == 0.0
    assert idle.load == pytest.approx(12.0, rel=0.01)
    other = estimates.profile(("ann", N, "/api/chat"), 2000, later)
    warm = KnownServer(A, loaded={N})
    estimates.sent(501, other, warm, estimates.predict(other, warm, later), later)
    cold.leaves = (N,)
    assert estimates.predict(request, cold, later).wait > 0.0


def test_those_who_wait_for_another_runner_count_as_far_as_it_takes_them() -> None:
    estimates, server = Estimates(), KnownServer(A, loaded={M, N}, slots=4.0)
    other = estimates.profile(("ann", N, "/api/chat"), 2000, 0.0)
    for number in (1, 2):
        estimates.sent(number, other, server, estimates.predict(other, server, 0.0), 0.0)
    beside = estimates.takes(A, N, 12)
    assert beside == 0, "two run, so the twelve who wait for it wait for these"
    request = estimates.profile(ASKER, 2000, 0.0)
    assert estimates.predict(request, server, 0.0, 0, beside).wait == 0.0
    assert estimates.predict(request, server, 0.0, 0, 12).wait > 0.0
    assert estimates.takes(A, None, 12) == 12


def test_of_a_load_under_way_the_rest_is_left() -> None:
    fleet, cold = SimulatedFleet(), KnownServer(A, loaded=set())
    estimates = fleet.estimates
    request = estimates.profile(ASKER, 2000, 0.0)
    terms = estimates.predict(request, cold, 0.0)
    estimates.sent(1, request, cold, terms, 0.0)
    assert estimates.predict(request, cold, 2.0).load == pytest.approx(terms.load - 2.0)


def test_a_busy_runner_is_waited_for_and_who_is_ahead_counts() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A, slots=2.0)
    for _ in range(20):
        fleet.serve(server)  # 6.2 s each
    estimates, request = fleet.estimates, fleet.estimates.profile(ASKER, 2000, fleet.now)
    for number in (1001, 1002):
        terms = estimates.predict(request, server, fleet.now)
        assert terms.wait == 0.0
        estimates.sent(number, request, server, terms, fleet.now)
        estimates.spoke(number, fleet.now + 0.1)
        fleet.now += 0.2
    waits = [estimates.predict(request, server, fleet.now, ahead).wait for ahead in range(4)]
    assert waits == sorted(waits)
    assert 4.0 < waits[0] < 7.0
    assert waits[2] > waits[0] + 4.0
    later = estimates.predict(request, server, fleet.now + 3.0).wait
    assert 0.0 <= later < waits[0]
    estimates.learn(1001, None, fleet.now + 3.0, "left")
    assert estimates.predict(request, server, fleet.now + 3.0).wait == 0.0


def test_the_second_turn_of_a_chat_is_cheaper_where_the_first_one_was() -> None:
    fleet, home, other = SimulatedFleet(), KnownServer(A), KnownServer(B)
    for _ in range(5):
        fleet.serve(home)
        fleet.serve(other)
    fleet.serve(home, links=CHAT)
    request = fleet.estimates.profile(ASKER, 2000, fleet.now, links=[*CHAT, PromptLink(3, 2000)])
    here, there = (fleet.estimates.predict(request, server, fleet.now) for server in (home, other))
    assert here.prefill < 0.3 * there.prefill
    assert here.metric < 0.3 * there.metric
    fleet.estimates.reloaded(AM, fleet.now)
    anew = fleet.estimates.profile(ASKER, 2000, fleet.now, links=CHAT)
    assert fleet.estimates.predict(anew, home, fleet.now).prefill == pytest.approx(there.prefill, rel=0.1)


def test_a_cache_that_holds_nothing_is_found_out_within_a_few_requests() -> None:
    fleet, home = SimulatedFleet(), KnownServer(A)
    for _ in range(10):
        fleet.serve(home)
    first = None
    for _ in range(8):
        terms = fleet.serve(home, links=CHAT)  # all of it is evaluated each time
        first = first or (terms if terms.prefill < 0.5 else None)
    assert first is not None
    assert fleet.serve(home, links=CHAT).prefill > 2 * first.prefill


def test_slots_are_learned_and_shown() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A)
    estimates, request = fleet.estimates, fleet.estimates.profile(ASKER, 2000, 0.0)
    assert estimates.slots(AM) is None
    for number in range(1, 4):
        estimates.sent(number, request, server, estimates.predict(request, server, 0.0), number * 1.0)
        estimates.spoke(number, number + 0.3)
    slots = estimates.slots(AM)
    assert slots is not None
    assert slots.proven == 3


def test_a_model_for_embeddings_begins_with_one_slot() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A, alone=True)
    estimates, request = fleet.estimates, fleet.estimates.profile(ASKER, 2000, 0.0)
    estimates.sent(1, request, server, estimates.predict(request, server, 0.0), 0.0)
    assert estimates.predict(request, server, 0.1).wait > 0.0


def test_a_lease_whose_end_nobody_told_can_be_struck_out() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A, slots=1.0)
    estimates, request = fleet.estimates, fleet.estimates.profile(ASKER, 2000, 0.0)
    for number in (1, 1, 2):  # the same number again replaces the lease
        estimates.sent(number, request, server, estimates.predict(request, server, 0.0), 0.0)
    assert estimates.predict(request, server, 1.0).wait > 0.0
    estimates.keep_only({7}, 1.0)
    assert estimates.predict(request, server, 1.0).wait == 0.0
    slots = estimates.slots(AM)
    assert slots is not None
    assert slots.open == 0


def test_the_metric_is_lmetric() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A)
    estimates, request = fleet.estimates, fleet.estimates.profile(ASKER, 2000, 0.0)
    for number in range(3):
        terms = estimates.predict(request, server, 0.0)
        assert terms.metric == lmetric(request.tokens, 0.0, number)
        estimates.sent(number, request, server, terms, 0.0)


def test_wild_predictions_are_called_unreliable() -> None:
    fleet, server = SimulatedFleet(), KnownServer(A)
    for at in range(60):
        fleet.serve(server, rate=2000.0 if at % 2 else 20.0, step=0.005 if at % 2 else 0.5)
    request = fleet.estimates.profile(ASKER, 2000, fleet.now)
    assert not fleet.estimates.predict(request, server, fleet.now).footing.reliable
    assert fleet.estimates.doubted == {AM}
    for _ in range(60):
        fleet.serve(server, rate=500.0, step=0.05)
        fleet.now += 30.0
    assert fleet.estimates.predict(request, server, fleet.now).footing.reliable
    assert not fleet.estimates.doubted


def test_answers_of_unforeseeable_length_do_not_make_predictions_unreliable() -> None:
    """That is a property of requests, the same wherever they go, and chats vary so."""
    fleet, server, dice = SimulatedFleet(), KnownServer(A), random.Random(1)
    for _ in range(120):
        fleet.serve(server, answer=max(1, int(150 * dice.lognormvariate(0.0, 1.5))))
    request = fleet.estimates.profile(ASKER, 2000, fleet.now)
    accuracy = fleet.estimates.trust.of(AM)
    assert accuracy is not None
    assert accuracy.unreliable(fleet.now), "as it was predicted, it was out by more than two"
    assert fleet.estimates.predict(request, server, fleet.now).footing.reliable


def test_a_flood_of_one_pair_teaches_no_more_than_a_few_requests_a_second() -> None:
    estimates, server = Estimates(), KnownServer(A)
    for number in range(1000):
        now = number * 0.001
        request = estimates.profile(ASKER, 2000, now)
        estimates.sent(number, request, server, estimates.predict(request, server, now), now)
        estimates.learn(number, Told(600, 100, 0.001, 1.0, 2.0, 3.001), now)
    assert estimates.service.best(AM, 1.0).weight_at(1.0) <= 5.0


_events = st.lists(
    st.tuples(
        st.sampled_from(["sent", "spoke", "well", "failed", "left", "reloaded"]), st.integers(0, 9), st.floats(0, 50)
    ),
    max_size=60,
)
_told = st.builds(
    Told,
    *[st.one_of(st.none(), st.integers(-5, 10**9))] * 2,
    *[st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))] * 4,
)


@given(_events, _told, st.booleans())
def test_whatever_happens_predictions_are_finite_and_not_negative(
    events: list[tuple[str, int, float]], told: Told, warm: bool
) -> None:
    estimates, server, now = Estimates(), KnownServer(A, loaded={M} if warm else set(), slots=3.0), 0.0
    for what, number, seconds in events:
        now += seconds
        request = estimates.profile(ASKER, 2000, now, links=CHAT, session=5)
        terms = estimates.predict(request, server, now, ahead=number, beside=number // 2)
        for each in (terms.wait, terms.load, terms.prefill, terms.decode, terms.metric, terms.done, terms.risk(1.0)):
            assert 0.0 <= each < 1e9
        if what == "sent":
            estimates.sent(number, request, server, terms, now)
        elif what == "spoke":
            estimates.spoke(number, now)
        elif what == "reloaded":
            estimates.reloaded(AM, now)
        else:
            estimates.learn(number, told, now, what)  # type: ignore[arg-type]
