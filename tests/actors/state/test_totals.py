"""The fleet's figures as requests end: from the recorder to windows, totals and the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors.state.messages import RequestRecord
from actors.state.totals import FLEET, KIND, Totals, key_of
from actors.storage.journal import Document, Journal
from actors.storage.writer import open_journal
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.observability.statistics.totals import MOST_PAIRS
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

A = Pair(ServerId("a"), ModelName("m:latest"))


def record(model: str = "m:latest", server: str = "a", outcome: str = "completed") -> RequestRecord:
    return RequestRecord("r", "/api/chat", model, "", server, outcome, 200, 1, 0.0, None, 1.0, 1, 3, 5, False)


class Kept:
    """A journal whose marks are counted as they come, and a wall clock that is Trio's and a bit."""

    def __init__(self, stored: Mapping[str, Document] | None = None) -> None:
        self.journal = Journal({KIND: stored or {}})
        self.journal.attached = True
        self.tallies = Totals(trio.current_time, lambda: 1e9 + trio.current_time(), self.journal)

    def taken(self) -> dict[str, Document | None]:
        """What a store would write now."""
        keys = [key for kind, key in self.journal.touched if kind == KIND]
        self.journal.touched.clear()
        return {key: self.journal.sources[KIND](key) for key in keys}


async def run(fleet: Fleet, *models: str) -> None:
    for model in models:
        await error_of(fleet, chat(model))


async def test_finished_requests_show_up_in_the_figures_of_their_pair_and_of_the_fleet(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a") as fleet:
        tally = fleet.system.statistics.totals
        await run(fleet, "m", "M:latest", "n", "nobody-has-this")
        fleet.system.statistics.request_log.flush()
        start, whole = tally.window(60.0)
        assert (whole.count, whole.errors, whole.output) == (4, 1, 15)
        assert start <= trio.current_time()
        assert tally.window(60.0, A)[1].count == 2
        assert tally.requests(A.model, 60.0) == 2
        assert tally.requests(ModelName("nobody-has-this:latest"), 60.0) == 1
        assert set(tally.book.pairs) == {A, Pair(ServerId("a"), ModelName("n:latest"))}


async def test_a_window_forgets_and_a_total_does_not(autojump_clock: MockClock) -> None:
    kept = Kept()
    kept.tallies.note(RequestBatch([record()]))
    await trio.sleep(3_600)
    kept.tallies.note(RequestBatch([record()]))
    assert [sums.count for _, sums in kept.tallies.windows((60.0, 900.0, 86_400.0), A)] == [1, 1, 2]
    await trio.sleep(604_800 + 21_600)
    assert kept.tallies.window(604_800.0, A)[1].count == 0
    assert kept.tallies.requests(A.model, 604_800.0) == 0
    assert kept.tallies.book.pairs[A].total.requests == 2


async def test_waiting_for_a_slot_is_the_fleets_latency_and_not_the_servers(autojump_clock: MockClock) -> None:
    profile = Profile(load_seconds=0.0, slots=1, tokens_per_second=1.0)
    async with open_fleet(("a", profile), slots=1) as fleet:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(partial(error_of, fleet, chat("m", tokens=10)))
        fleet.system.statistics.request_log.flush()
        whole, own = fleet.system.statistics.totals.window(60.0)[1], fleet.system.statistics.totals.window(60.0, A)[1]
    assert own.average == pytest.approx(10_000, rel=0.1)
    assert whole.average == pytest.approx(15_000, rel=0.1)
    assert whole.waited / whole.count == pytest.approx(whole.average - own.average)


async def test_a_client_that_leaves_is_counted_and_is_no_error(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        with trio.move_on_after(1.0):
            await fleet.system.exchange(chat("m", tokens=10_000), Client())
        fleet.system.statistics.request_log.flush()
        sums = fleet.system.statistics.totals.window(60.0, A)[1]
        assert (sums.count, sums.errors) == (1, 0)


async def test_last_used_is_the_time_of_day_of_the_last_end(autojump_clock: MockClock) -> None:
    kept = Kept()
    assert kept.tallies.last_used(A) is None
    kept.tallies.note(RequestBatch([record()]))
    began = trio.current_time()
    await trio.sleep(50)
    assert kept.tallies.last_used(A) == 1e9 + began
    kept.tallies.note(RequestBatch([record(outcome="refused_500")]))
    assert kept.tallies.last_used(A) == 1e9 + began + 50


async def test_totals_survive_a_restart_and_windows_do_not(autojump_clock: MockClock) -> None:
    before = Kept()
    for outcome in ("completed", "refused_500", "client_left"):
        before.tallies.note(RequestBatch([record(outcome=outcome)]))
    before.tallies.note(RequestBatch([record(server="", outcome="no_server")]))
    before.tallies.settle()
    stored = {key: document for key, document in before.taken().items() if document is not None}
    assert set(stored) == {FLEET, '["a","m:latest"]'}
    await trio.sleep(100)
    after = Kept(stored)
    after.tallies.note(RequestBatch([record()]))
    whole, own = after.tallies.book.fleet.total, after.tallies.book.pairs[A].total
    assert (whole.requests, whole.errors, whole.tokens, whole.since) == (5, 2, 40, 1e9)
    assert (own.requests, own.errors, own.tokens) == (4, 1, 32)
    assert after.tallies.window(3_600.0)[1].count == 1
    assert Kept(stored).tallies.last_used(A) == 1e9


async def test_what_the_store_makes_of_nonsense_is_left_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    good: Document = {"since": 5e8, "requests": 7, "errors": 1, "prompt": 2, "output": 3, "last_used": 6e8}
    bad: dict[str, Document] = {
        "[": good,
        '["a"]': good,
        '["a",3]': good,
        '{"a":1}': good,
        "7": good,
        '["b","m"]': {},
        FLEET: {"x": 1},
    }
    kept = Kept({**bad, key_of(A): good})
    assert list(kept.tallies.book.pairs) == [A]
    assert kept.tallies.book.pairs[A].total.requests == 7
    assert kept.tallies.book.fleet.total.requests == 0
    assert len(caplog.records) == 1


async def test_of_too_many_stored_pairs_those_used_last_are_kept(autojump_clock: MockClock) -> None:
    def document(used: float) -> Document:
        return {"since": 1.0, "requests": 1, "errors": 0, "prompt": 0, "output": 0, "last_used": used}

    stored = {key_of(Pair(ServerId("a"), ModelName(f"m{n}"))): document(float(n)) for n in range(MOST_PAIRS + 3)}
    kept = Kept(dict(reversed(stored.items())))
    assert len(kept.tallies.book.pairs) == MOST_PAIRS
    assert ("a", "m2") not in kept.tallies.book.pairs
    assert ("a", "m3") in kept.tallies.book.pairs


async def test_a_total_is_marked_at_most_once_a_second_and_the_last_change_is_marked_too(
    autojump_clock: MockClock,
) -> None:
    kept = Kept()
    marks = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.tallies.run)
        for _ in range(35):  # 3.5 s of steady traffic
            kept.tallies.note(RequestBatch([record()]))
            await trio.sleep(0.1)
            if taken := kept.taken():
                assert set(taken) == {FLEET, key_of(A)}
                marks.append(trio.current_time())
        await trio.sleep(1.1)
        last = kept.taken()[FLEET]
        assert len(marks) == 4
        assert last is not None
        assert last["requests"] == 35
        await trio.sleep(100)
        assert not kept.taken()
        nursery.cancel_scope.cancel()


async def test_what_has_changed_at_the_very_end_is_marked_when_the_fleet_stops(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_fleet("a", journal=journal) as fleet:
        journal.attached = True
        await run(fleet, "m")
        await trio.sleep(0.2)
        await run(fleet, "m")
        journal.touched.clear()
    assert {key for kind, key in journal.touched if kind == KIND} == {FLEET, key_of(A)}
    document = journal.sources[KIND](FLEET)
    assert document is not None
    assert document["requests"] == 2


async def test_a_pair_that_is_pushed_out_is_deleted_from_the_store(autojump_clock: MockClock) -> None:
    kept = Kept()
    for number in range(MOST_PAIRS):
        kept.tallies.note(RequestBatch([record(model=f"m{number}")]))
    kept.tallies.settle()
    assert None not in kept.taken().values()
    kept.tallies.note(RequestBatch([record(model="new")]))
    kept.tallies.settle()
    gone = key_of(Pair(ServerId("a"), ModelName("m0")))
    assert [key for key, document in kept.taken().items() if document is None] == [gone]


async def test_without_a_store_nothing_is_marked(autojump_clock: MockClock) -> None:
    kept = Kept()
    kept.journal.attached = False
    kept.tallies.note(RequestBatch([record()]))
    kept.tallies.settle()
    assert not kept.taken()


async def lived(path: Path, *models: str) -> Totals:
    """One life of a fleet over a real store, which answers these requests; its figures."""
    journal, store = await open_journal(path, 100, time.time)
    assert store is not None
    async with open_fleet("a", journal=journal) as fleet:
        await run(fleet, *models)
    await store.finish()
    return fleet.system.statistics.totals


async def test_totals_are_in_the_file_when_the_fleet_has_stopped(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    first = (await lived(path, "m", "m", "nobody-has-this")).book.fleet.total
    second = await lived(path, "m")
    assert (first.requests, first.errors) == (3, 1)
    assert (second.book.fleet.total.requests, second.book.fleet.total.errors) == (4, 1)
    assert second.book.fleet.total.since == first.since
    assert second.book.pairs[A].total.requests == 3
    third = await lived(path)
    assert third.book.fleet.total == second.book.fleet.total
    assert third.last_used(A) == second.last_used(A)
