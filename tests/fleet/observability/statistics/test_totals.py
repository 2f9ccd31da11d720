"""The fleet's figures against a naive model: the list of all finished requests."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.breakers.failure_classes import NO_ERRORS
from fleet.breakers.outcomes import ClientLeft, Completed, End, Failed, Incomplete, Refused, Revoked, StreamError, kind
from fleet.common.errors import BackendUnreachable, Phase
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.statistics.aggregates import Sample, Sums
from fleet.observability.statistics.quantile_sketch import BINS, ERROR, value_of
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.observability.statistics.time_windows import MOST_BUCKETS
from fleet.observability.statistics.totals import (
    MOST_MODELS,
    MOST_PAIRS,
    MOST_STRANGERS,
    RECENT,
    PairTotals,
    Tally,
    Total,
)


@dataclass
class Done:
    """A finished request."""

    endpoint: str = "/api/chat"
    server: str = "a"
    model: str = "m:latest"
    outcome: str = "completed"
    queue_seconds: float = 0.0
    first_byte_seconds: float | None = None
    total_seconds: float = 1.0
    chunks: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    stream: bool = False


A = Pair(ServerId("a"), ModelName("m:latest"))


def tally_of(done: Iterable[Done], now: float = 0.0, at: float = 1e9) -> Tally:
    tally = Tally(0.0, at)
    for each in done:
        tally.note(RequestBatch([each]), now, at)
    return tally


REQUESTS = st.builds(
    Done,
    server=st.sampled_from(["a", "b", ""]),
    model=st.sampled_from(["m:latest", "n:latest", ""]),
    outcome=st.sampled_from(["completed", "incomplete", "client_left", "refused_500", "queue_full", "idle_timeout"]),
    queue_seconds=st.floats(0.0, 20.0),
    total_seconds=st.floats(20.0, 900.0),
    prompt_tokens=st.none() | st.integers(0, 10_000),
    output_tokens=st.none() | st.integers(0, 10_000),
)
SPANS = (60.0, 300.0, 900.0, 3_600.0, 86_400.0)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.floats(0.0, 4_000.0), st.lists(REQUESTS, min_size=1, max_size=5)), max_size=30))
def test_every_window_sums_up_exactly_the_requests_since_it_begins(steps: list[tuple[float, list[Done]]]) -> None:
    tally, seen, now = Tally(0.0, 1e9), list[tuple[float, Done]](), 0.0
    for gap, batch in steps:
        now += gap
        tally.note(RequestBatch(batch), now, 1e9 + now)
        seen += [(now, done) for done in batch]
    check(seen, tally.windows(now, SPANS), without_wait=False)
    for pair in {Pair(ServerId(done.server), ModelName(done.model)) for _, done in seen if done.server}:
        mine = [(at, done) for at, done in seen if (done.server, done.model) == pair]
        check(mine, tally.windows(now, SPANS, pair), without_wait=True)
        assert tally.pairs[pair].total.requests == len(mine)
        assert tally.pairs[pair].total.last_used == 1e9 + mine[-1][0]
    for model in ("m:latest", "n:latest", ""):
        assert tally.requests(ModelName(model), now, 604_800.0) == sum(done.model == model for _, done in seen)


def check(seen: list[tuple[float, Done]], windows: list[tuple[float, Sums]], *, without_wait: bool) -> None:
    for start, sums in windows:
        inside = [done for at, done in seen if at >= start]
        times = [(done.total_seconds - (done.queue_seconds if without_wait else 0.0)) * 1000 for done in inside]
        assert sums.count == len(inside)
        assert sums.errors == sum(done.outcome in ("refused_500", "queue_full", "idle_timeout") for done in inside)
        assert sums.prompt == sum(done.prompt_tokens or 0 for done in inside)
        assert sums.output == sum(done.output_tokens or 0 for done in inside)
        assert sums.latency == pytest.approx(sum(times))
        assert sums.squared == pytest.approx(sum(each * each for each in times))
        assert sums.waited == pytest.approx(sum(done.queue_seconds for done in inside) * 1000)
        if times:
            assert sums.least == pytest.approx(min(times))
            assert sums.most == pytest.approx(max(times))
            truth = sorted(times)[math.ceil(0.95 * len(times)) - 1]
            assert sums.percentile(0.95) == pytest.approx(truth, rel=ERROR, abs=1.0)


ENDS: list[tuple[End, bool]] = [
    (Completed(200), False),
    (Incomplete(200), False),
    (ClientLeft(), False),
    (ClientLeft(stalled=True), False),
    (Refused(500), True),
    (Refused(400), True),
    (StreamError("x"), True),
    (Revoked("drain timeout"), True),
    (Failed(BackendUnreachable("no", Phase.CONNECT)), True),
]


@pytest.mark.parametrize(("end", "error"), ENDS)
def test_what_failed_its_client_is_an_error_and_a_client_that_left_is_none(end: End, error: bool) -> None:
    tally = tally_of([Done(outcome=kind(end))])
    assert tally.window(0.0, 60.0)[1].errors == int(error)
    assert (kind(end) in NO_ERRORS) is not error


@pytest.mark.parametrize("outcome", ["queue_full", "queue_timeout", "no_server", "model_not_found", "internal_error"])
def test_what_the_fleet_refused_is_an_error_of_the_fleet_alone(outcome: str) -> None:
    tally = tally_of([Done(server="", outcome=outcome)])
    assert tally.window(0.0, 60.0)[1].errors == 1
    assert not tally.pairs


def test_a_window_never_begins_before_the_process() -> None:
    tally = Tally(1_000.0, 1e9)
    tally.note(RequestBatch([Done()]), 1_003.0, 1e9)
    assert tally.window(1_010.0, 3_600.0)[0] == 1_000.0
    assert tally.window(1_010.0, 3_600.0, A)[0] == 1_000.0
    assert tally.window(1_010.0, 3_600.0, Pair(ServerId("?"), ModelName("?")))[0] == 1_000.0


def test_a_pair_that_nobody_asked_for_has_zeros() -> None:
    start, sums = Tally(0.0, 1e9).window(100.0, 60.0, A)
    assert (start, sums.count, sums.average, sums.error_rate, sums.percentile(0.95)) == (40.0, 0, 0.0, 0.0, 0.0)


def test_the_pairs_asked_for_last_are_kept_and_the_one_that_goes_is_named() -> None:
    tally = Tally(0.0, 1e9)
    for number in range(MOST_PAIRS):
        assert tally.note(RequestBatch([Done(model=f"m{number}")]), 0.0, 1e9)[1] == set()
    assert tally.note(RequestBatch([Done(model="m0")]), 0.0, 1e9) == ({("a", "m0")}, set())  # used again, so it stays
    assert tally.note(RequestBatch([Done(model="new")]), 0.0, 1e9) == ({("a", "new")}, {("a", "m1")})
    assert len(tally.pairs) == MOST_PAIRS
    assert ("a", "m0") in tally.pairs
    assert ("a", "m1") not in tally.pairs


def test_invented_names_push_out_no_model_that_is_served() -> None:
    tally = tally_of([Done()])
    for number in range(MOST_STRANGERS + MOST_MODELS):
        tally.note(RequestBatch([Done(server="", model=f"x{number}", outcome="model_not_found")]), 0.0, 1e9)
    assert tally.requests(A.model, 0.0, 60.0) == 1
    assert tally.requests(ModelName("x0"), 0.0, 60.0) == 0
    assert tally.requests(ModelName(f"x{MOST_STRANGERS + MOST_MODELS - 1}"), 0.0, 60.0) == 1
    assert len(tally._strangers) == MOST_STRANGERS


def test_requests_for_a_model_count_on_every_server_and_the_refused_ones_too() -> None:
    tally = tally_of([Done(server="", outcome="model_not_found"), Done(), Done(server="b")])
    tally.note(RequestBatch([Done(server="", outcome="queue_full")]), 100.0, 1e9)
    assert tally.requests(A.model, 100.0, 3_600.0) == 4
    assert tally.requests(A.model, 100.0, 60.0) == 1
    assert tally.requests(ModelName("other"), 100.0, 60.0) == 0


def test_only_the_last_streams_are_remembered_without_their_wait() -> None:
    done = Done(stream=True, queue_seconds=1.0, first_byte_seconds=1.5, total_seconds=4.0, chunks=7)
    tally = tally_of([done] * (RECENT + 5))
    tally.note(RequestBatch([Done(stream=True)]), 0.0, 1e9)  # nothing ever came
    tally.note(RequestBatch([Done(first_byte_seconds=1.0)]), 0.0, 1e9)  # not streamed
    assert list(tally.pairs[A].streams) == [(500.0, 2_500.0, 7)] * RECENT


def test_a_total_comes_back_as_it_was_kept() -> None:
    tally = tally_of([Done(prompt_tokens=3, output_tokens=5), Done(outcome="refused_500")], at=2e9)
    total = tally.pairs[A].total
    assert total == Total(2e9, 2, 1, 3, 5, 2e9)
    assert total.tokens == 8
    assert Total.read(total.document(), 3e9) == total
    again = Tally(0.0, 3e9)
    again.restore(A, Total.read(total.document(), 3e9))
    again.note(RequestBatch([Done()]), 0.0, 3e9)
    assert again.pairs[A].total == Total(2e9, 3, 1, 3, 5, 3e9)


def test_a_clock_that_was_set_back_puts_nothing_into_the_future() -> None:
    document = Total(2e9, 1, last_used=2e9).document()
    assert Total.read(document, 1e9) == Total(1e9, 1, last_used=1e9)


BAD: list[dict[str, Any]] = [
    {"requests": -1},
    {"requests": 1.5},
    {"requests": True},
    {"requests": "7"},
    {"errors": 2**63},
    {"since": None},
    {"since": math.inf},
    {"since": math.nan},
    {"since": -1.0},
    {"last_used": "now"},
    {"last_used": False},
]


@pytest.mark.parametrize("wrong", BAD)
def test_what_makes_no_sense_is_not_believed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a"):
        Total.read(Total(1.0).document() | wrong, 2.0)


def test_what_is_missing_is_not_made_up() -> None:
    document = Total(1.0).document()
    del document["errors"]
    with pytest.raises(KeyError):
        Total.read(document, 2.0)


def bytes_of(thing: Any) -> int:
    """What an object of ours holds, with everything in it; small numbers are shared by all."""
    if isinstance(thing, float | array):
        return sys.getsizeof(thing)
    if isinstance(thing, int):
        return sys.getsizeof(thing) if thing > 256 else 0
    names = getattr(type(thing), "__slots__", ())
    return sys.getsizeof(thing) + sum(bytes_of(getattr(thing, name)) for name in names)


def test_the_most_memory_that_all_figures_can_ever_take() -> None:
    full = Sums()
    for place in range(BINS):  # a bucket can take no more room than this
        sample = Sample(RequestBatch([Done(prompt_tokens=10**9, output_tokens=10**9)]).groups[0])
        sample.latencies, sample.waited = [value_of(place)], value_of(place)
        sample.bins = [place]
        full.add(sample)
    slot = 120  # its edges, and its place in the list
    pair = MOST_BUCKETS * (bytes_of(full) + slot) + RECENT * 250 + 2_000
    model = MOST_BUCKETS * (100 + slot) + 1_000
    worst = (MOST_PAIRS + 1) * pair + (MOST_MODELS + MOST_STRANGERS) * model
    assert 1e6 < worst < 250e6  # every bucket of a week full of latencies from 1 ms to a day, on 1024 pairs
    tally = tally_of([Done()])
    assert isinstance(tally.fleet, PairTotals)
    usual = Sums()
    usual.add(Sample(RequestBatch([Done()]).groups[0]))
    assert bytes_of(usual) < 600
