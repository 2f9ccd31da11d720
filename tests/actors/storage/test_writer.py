"""The store's actor on a virtual clock: what is marked gets to disk, once, in bounded batches, whatever happens."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.supervisor import keep_up
from actors.storage import journal as journals
from actors.storage.batches import MOST_DOCUMENTS, MOST_LINES
from actors.storage.database_file import StoreLost
from actors.storage.journal import RECENT, Document, Journal
from actors.storage.writer import MOST_RETRY, PAUSE, WRITE_WITHIN, Store
from tests.kit.fleets.store import FakeDisk, journal_on


@dataclass
class Bench:
    """Things that change, the journal that is told, and the disk."""

    disk: FakeDisk = field(default_factory=FakeDisk)
    things: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    journal: Journal = field(init=False)
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.journal, self.store = journal_on(self.disk)
        self.journal.keep("thing", self.document)

    def document(self, key: str) -> Document | None:
        self.asked[key] += 1
        return {"is": self.things[key]} if key in self.things else None

    def change(self, key: str, value: Any) -> None:
        self.things[key] = value
        self.journal.touch("thing", key)

    def forget(self, key: str) -> None:
        del self.things[key]
        self.journal.touch("thing", key)

    @property
    def on_disk(self) -> dict[str, Any]:
        return {key: document["is"] for (_, key), document in self.disk.documents.items()}


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    bench = Bench()
    nursery.start_soon(keep_up, "store", bench.store.run)
    await wait_all_tasks_blocked()
    return bench


# ---- without a store


async def test_without_a_store_nothing_piles_up_and_nobody_waits(autojump_clock: MockClock) -> None:
    journal = Journal()
    journal.touch("thing", "a")
    assert await journal.kept(60.0)
    assert trio.current_time() == 0.0
    assert (journal.pending, journal.view().state, journal.view().since) == (0, "off", None)


async def test_without_a_store_the_last_thousand_audit_lines_are_there(autojump_clock: MockClock) -> None:
    journal = Journal()
    for number in range(1500):
        journal.audit({"what": number})
    newest = await journal.history(3)
    assert [line["what"] for line in newest] == [1499, 1498, 1497]
    older = await journal.history(10_000, before=newest[-1]["id"])
    assert [line["what"] for line in older] == list(range(1496, 499, -1))
    assert await journal.history(0) == []
    assert await journal.history(5, before=1) == []


# ---- what is marked gets to disk


async def test_what_changes_is_on_disk_once_it_is_kept(autojump_clock: MockClock, bench: Bench) -> None:
    bench.change("a", 1)
    bench.change("b", 1)
    assert await bench.journal.kept(1.0)
    assert bench.on_disk == {"a": 1, "b": 1}
    bench.change("a", 2)
    bench.forget("b")
    assert await bench.journal.kept(1.0)
    assert bench.on_disk == {"a": 2}
    assert bench.journal.pending == 0


async def test_many_changes_of_one_thing_are_one_question_and_one_row(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(1000):
        bench.change("a", number)
    assert bench.journal.pending == 1
    assert await bench.journal.kept(1.0)
    assert (bench.on_disk, bench.asked["a"]) == ({"a": 999}, 1)


async def test_batches_are_bounded_and_leave_a_pause_between_them(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(5 * MOST_DOCUMENTS):
        bench.change(str(number), number)
    for number in range(3 * MOST_LINES):
        bench.journal.audit({"number": number})
    assert await bench.journal.kept(10.0)
    assert [len(batch.documents) for batch in bench.disk.batches] == [MOST_DOCUMENTS] * 5
    assert [len(batch.lines) for batch in bench.disk.batches] == [MOST_LINES] * 3 + [0] * 2
    assert trio.current_time() == pytest.approx(4 * PAUSE)
    assert len(bench.on_disk) == 5 * MOST_DOCUMENTS


async def test_big_documents_make_small_batches(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(6):
        bench.change(str(number), "x" * 600_000)
    assert await bench.journal.kept(10.0)
    assert [len(batch.documents) for batch in bench.disk.batches] == [2, 2, 2]


async def test_a_change_during_a_write_is_written_after_it(autojump_clock: MockClock, bench: Bench) -> None:
    """`kept` speaks of what was marked before it: a batch that began earlier proves nothing."""
    bench.disk.slow = 1.0
    bench.change("a", 1)
    await trio.sleep(0.5)
    bench.change("a", 2)
    assert await bench.journal.kept(5.0)
    assert bench.on_disk == {"a": 2}
    assert trio.current_time() == pytest.approx(2.0 + PAUSE)


async def test_kept_does_not_wait_for_what_comes_later(
    autojump_clock: MockClock, bench: Bench, nursery: trio.Nursery
) -> None:
    async def go_on_changing() -> None:
        for number in range(1000):
            bench.change(str(number), number)
            await trio.sleep(0.01)

    bench.disk.slow = 0.1
    bench.change("a", 1)
    nursery.start_soon(go_on_changing)
    assert await bench.journal.kept(1.0)
    assert bench.journal.pending


async def test_kept_gives_up_in_time(autojump_clock: MockClock, bench: Bench) -> None:
    bench.disk.slow = 10.0
    bench.change("a", 1)
    assert not await bench.journal.kept(2.0)
    assert trio.current_time() == pytest.approx(2.0)


# ---- writing fails


async def test_failing_writes_are_kept_in_memory_and_told_once(
    autojump_clock: MockClock, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fleet.store")
    bench.disk.trouble = OSError("no space left on device")
    bench.change("a", 1)
    bench.journal.audit({"what": "a"})
    assert not await bench.journal.kept(60.0)
    assert trio.current_time() < 1.0, "the answer is known as soon as the write has failed"
    began = trio.current_time()
    for number in range(100):
        bench.change("a", number)
        bench.change("b", number)
        await trio.sleep(10.0)
    view = bench.journal.view()
    assert (view.state, view.why, view.pending) == ("degraded", "no space left on device", 3)
    assert (trio.current_time() - began) / MOST_RETRY - 5 < bench.disk.tried < 45, "ever more rarely, but for ever"
    assert not await bench.journal.kept(60.0)
    bench.disk.trouble = None
    await trio.sleep(MOST_RETRY + 1.0)
    assert await bench.journal.kept(1.0)
    assert (bench.on_disk, len(bench.disk.audit)) == ({"a": 99, "b": 99}, 1)
    view = bench.journal.view()
    assert (view.state, view.why, view.pending, view.dropped_lines) == ("ok", "", 0, 0)
    assert view.last_write is not None
    assert [(record.levelname, record.name) for record in caplog.records] == [
        ("WARNING", "fleet.store"),
        ("INFO", "fleet.store"),
    ]


async def test_after_a_recovery_the_next_failure_is_tried_again_soon(autojump_clock: MockClock, bench: Bench) -> None:
    for _ in range(3):
        bench.disk.trouble = OSError("full")
        bench.change("a", 1)
        await trio.sleep(100.0)
        bench.disk.trouble = None
        await trio.sleep(MOST_RETRY)
        assert bench.journal.view().state == "ok"
    bench.disk.trouble = OSError("full")
    bench.change("a", 2)
    await trio.sleep(0.1)
    bench.disk.trouble = None
    await trio.sleep(1.0)
    assert bench.on_disk == {"a": 2}


async def test_a_write_that_hangs_counts_as_failed(autojump_clock: MockClock, bench: Bench) -> None:
    bench.disk.slow = math.inf
    bench.change("a", 1)
    await trio.sleep(WRITE_WITHIN + 1.0)
    view = bench.journal.view()
    assert (view.state, view.why) == ("degraded", "it takes too long")
    bench.disk.slow = 0.0
    await trio.sleep(WRITE_WITHIN + 5.0)
    assert bench.on_disk == {"a": 1}


async def test_too_many_lines_drop_the_oldest_and_say_so(autojump_clock: MockClock, bench: Bench) -> None:
    bench.disk.trouble = OSError("full")
    bench.journal.audit({"number": -1})
    await trio.sleep(0.1)
    for number in range(journals.MOST_LINES + 50):
        bench.journal.audit({"number": number})
    await trio.sleep(100.0)
    assert bench.journal.view().dropped_lines == 51
    assert bench.journal.pending == journals.MOST_LINES
    bench.disk.trouble = None
    await trio.sleep(100.0)
    assert [line["number"] for line in bench.disk.audit.values()] == list(range(50, journals.MOST_LINES + 50))


async def test_too_many_marks_are_not_kept_and_counted(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_MARKS", 10)
    bench.disk.trouble = OSError("full")
    for number in range(15):
        bench.change(str(number), number)
    view = bench.journal.view()
    assert (view.pending, view.dropped_changes) == (10, 5)
    bench.change("3", "again")
    bench.disk.trouble = None
    await trio.sleep(MOST_RETRY)
    assert bench.on_disk == {str(number): number for number in range(10)} | {"3": "again"}


async def test_a_dropped_change_is_not_kept(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_MARKS", 1)
    bench.disk.slow = 0.1
    bench.change("a", 1)
    await wait_all_tasks_blocked()
    bench.change("b", 1)
    waiting: list[bool] = []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            waiting.append(await bench.journal.kept(5.0))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        bench.change("c", 1)
    assert waiting == [False]


async def test_a_crash_of_the_actor_loses_nothing(
    autojump_clock: MockClock, bench: Bench, expected_errors: list[str]
) -> None:
    expected_errors.append("actor store crashed")
    bench.disk.trouble = RuntimeError("injected")
    bench.change("a", 1)
    bench.journal.audit({"what": "a"})
    await trio.sleep(0.005)
    assert bench.journal.view().state == "degraded"
    bench.disk.trouble = None
    await trio.sleep(5.0)
    assert (bench.on_disk, len(bench.disk.audit), bench.journal.view().state) == ({"a": 1}, 1, "ok")


async def test_a_crash_while_a_batch_is_made_loses_nothing(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor store crashed")
    original = Journal.take_lines
    crashes = [0]

    def take(journal: Journal, most: int) -> list[Document]:
        if not crashes[0]:
            crashes[0] = 1
            raise RuntimeError("injected")
        return original(journal, most)

    monkeypatch.setattr(Journal, "take_lines", take)
    bench.change("a", 1)
    await trio.sleep(5.0)
    assert crashes == [1]
    assert bench.on_disk == {"a": 1}


@pytest.mark.parametrize("thing", [{1, 2}, "\ud800", "x" * (5 << 20), 1 << 70], ids=["set", "surrogate", "big", "int"])
async def test_a_document_that_cannot_be_written_keeps_no_other_from_disk(
    autojump_clock: MockClock, bench: Bench, expected_errors: list[str], thing: Any
) -> None:
    expected_errors.append("a document of kind 'thing' cannot be kept")
    bench.change("bad", thing)
    bench.change("good", 1)
    assert not await bench.journal.kept(1.0), "something will never be on disk"
    bench.change("bad", thing)
    await trio.sleep(1.0)
    assert bench.on_disk == {"good": 1}
    assert (bench.journal.pending, bench.journal.view().state) == (0, "ok")
    assert bench.journal.view().dropped_changes == 2


@pytest.mark.parametrize("key", ["a\0b", "\ud800", "x" * 5000])
async def test_a_key_that_cannot_be_written_keeps_no_other_from_disk(
    autojump_clock: MockClock, bench: Bench, expected_errors: list[str], key: str
) -> None:
    expected_errors.append("cannot be kept")
    bench.change(key, 1)
    bench.change("good", 1)
    await trio.sleep(1.0)
    assert bench.on_disk == {"good": 1}


async def test_a_source_that_fails_or_is_missing_keeps_no_other_from_disk(
    autojump_clock: MockClock, bench: Bench, expected_errors: list[str]
) -> None:
    expected_errors += ["kind 'broken' cannot be kept: ZeroDivisionError", "kind 'nobody' cannot be kept"]
    bench.journal.keep("broken", lambda key: {"is": 1 / 0})
    bench.journal.touch("broken", "a")
    bench.journal.touch("nobody", "a")
    bench.change("good", 1)
    await trio.sleep(1.0)
    assert bench.on_disk == {"good": 1}


async def test_an_audit_line_is_not_lost_for_what_is_in_it(
    autojump_clock: MockClock, bench: Bench, expected_errors: list[str]
) -> None:
    expected_errors.append("kind 'audit' cannot be kept")
    for after in ("small", {1}, "x" * 100_000, "\ud800"):
        bench.journal.audit({"what": "config", "at": 5.0, "after": after})
    bench.journal.audit({"\ud800": 1})
    bench.journal.audit({"what": "the last"})
    await trio.sleep(1.0)
    found = [(number, line.get("what"), line.get("after")) for number, line in bench.disk.audit.items()]
    odd = [(2, "config", None), (3, "config", None), (4, "config", None)]
    assert found == [(1, "config", "small"), *odd, (6, "the last", None)]
    assert bench.journal.view().dropped_lines == 1
    lines = bench.disk.batches[0].lines
    assert [at for _, at, _ in lines[:4]] == [5.0] * 4


async def test_a_lost_file_is_written_anew_with_everything(
    autojump_clock: MockClock, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(150):
        bench.change(str(number), number)
    bench.forget("7")
    assert await bench.journal.kept(5.0)
    bench.disk.trouble = StoreLost("the file is gone")
    bench.change("3", "new")
    await trio.sleep(5.0)
    assert bench.journal.view().why == "the file is gone"
    bench.disk.trouble = None
    await trio.sleep(MOST_RETRY)
    assert await bench.journal.kept(5.0)
    assert bench.on_disk == {str(number): number for number in range(150) if number != 7} | {"3": "new"}


# ---- the audit log


async def test_history_joins_memory_and_store(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    disk = FakeDisk()
    disk.audit = {number: {"id": number, "what": f"old {number}"} for number in range(1, 21)}
    journal, store = journal_on(disk)
    nursery.start_soon(store.run)
    for number in range(5):
        journal.audit({"what": f"new {number}"})
    found = await journal.history(10)
    assert [line["what"] for line in found[:6]] == ["new 4", "new 3", "new 2", "new 1", "new 0", "old 20"]
    assert [line["id"] for line in found] == list(range(25, 15, -1))
    assert [line["id"] for line in await journal.history(3, before=17)] == [16, 15, 14]
    assert [line["id"] for line in await journal.history(100, before=3)] == [2, 1]


async def test_history_has_every_line_once_however_many_wait(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(2 * RECENT):
        bench.journal.audit({"number": number})
    assert await bench.journal.kept(30.0)
    bench.disk.trouble = OSError("full")
    for number in range(2 * RECENT, 5 * RECENT):
        bench.journal.audit({"number": number})
    await trio.sleep(1.0)
    before, numbers = None, []
    for _ in range(4):
        page = await bench.journal.history(1000, before)
        before = page[-1]["id"]
        numbers += [line["number"] for line in page]
        if len(numbers) == 3 * RECENT:
            bench.disk.trouble = None
            await trio.sleep(2 * MOST_RETRY)
    assert numbers == list(range(5 * RECENT - 1, RECENT - 1, -1))


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_history_falls_back_to_memory(autojump_clock: MockClock, bench: Bench, trouble: str) -> None:
    bench.journal.audit({"what": 1})
    assert await bench.journal.kept(1.0)
    if trouble == "fails":
        bench.disk.trouble = OSError("gone")
    else:
        bench.disk.slow = math.inf
    assert [line["what"] for line in await bench.journal.history(10)] == [1]
    assert trio.current_time() < 5.0


# ---- the end


async def test_the_last_flush_writes_what_is_left(autojump_clock: MockClock) -> None:
    bench = Bench()
    for number in range(3 * MOST_DOCUMENTS):
        bench.change(str(number), number)
    with trio.CancelScope() as ended:
        ended.cancel()
        await bench.store.finish()
    assert len(bench.on_disk) == 3 * MOST_DOCUMENTS
    assert bench.disk.closed
    bench.change("late", 1)
    assert bench.journal.pending == 0


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_the_last_flush_has_a_deadline(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    bench = Bench()
    if trouble == "fails":
        bench.disk.trouble = OSError("full")
    else:
        bench.disk.slow = math.inf
    bench.change("a", 1)
    await bench.store.finish(within=3.0)
    assert trio.current_time() <= 6.0
    assert "the store was closed with 1 changes unwritten" in caplog.text


async def test_a_cancelled_write_is_repeated_by_the_last_flush(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.disk.slow = 1.0
    bench.change("a", 1)
    bench.journal.audit({"what": 1})
    with trio.move_on_after(0.5):
        await bench.store.run()
    assert bench.on_disk == {}
    await bench.store.finish()
    assert (bench.on_disk, len(bench.disk.audit)) == ({"a": 1}, 1)


# ---- all at once


@pytest.mark.parametrize("seed", range(15))
async def test_kept_never_lies(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Many change and ask at once, while the disk fails and hangs and the actor is ended and begun again."""
    monkeypatch.setattr(journals, "MOST_LINES", 1_000_000)
    dice = random.Random(seed)
    bench = Bench()

    async def change_and_ask() -> None:
        for _ in range(40):
            for _ in range(dice.choice([1, 3, 250])):
                key = str(dice.randrange(300))
                if key in bench.things and dice.random() < 0.2:
                    bench.forget(key)
                else:
                    bench.change(key, bench.things.get(key, 0) + 1)
                bench.journal.audit({"key": key})
            then, line = dict(bench.things), bench.journal._next_line - 1
            changes = dict(versions)
            if await bench.journal.kept(dice.choice([0.1, 2.0])):
                for key in changes:
                    current = changes[key] == versions[key]
                    assert not current or bench.on_disk.get(key) == then.get(key), key
                assert all(number in bench.disk.audit for number in range(1, line + 1))
            await trio.sleep(dice.random())

    versions: Counter[str] = Counter()
    touch = bench.journal.touch

    def counted(kind: str, key: str) -> None:
        versions[key] += 1
        touch(kind, key)

    bench.journal.touch = counted  # type: ignore[method-assign]

    async def spoil() -> None:
        while True:
            bench.disk.trouble = dice.choice([None, None, None, OSError("full"), StoreLost("gone")])
            bench.disk.slow = dice.choice([0.0, 0.0, 0.3, 30.0])
            await trio.sleep(dice.random() * 2.0)

    async def live() -> None:
        while True:
            with trio.move_on_after(dice.random() * 3.0):
                await bench.store.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spoil)
        nursery.start_soon(live)
        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(change_and_ask)
        nursery.cancel_scope.cancel()
    bench.disk.trouble, bench.disk.slow = None, 0.0
    await bench.store.finish(within=math.inf)
    assert bench.on_disk == bench.things
    assert sorted(bench.disk.audit) == list(range(1, bench.journal._next_line))
    assert (bench.journal.pending, bench.journal.view().dropped_lines) == (0, 0)


# ---- reading back


async def test_what_cannot_be_read_back_is_left_out_with_one_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal({"thing": {"a": {"n": 1}, "b": {}, "c": {"n": "x"}, "d": {"n": None}, "e": {"n": 5}}})
    assert journal.recall("thing", lambda key, document: (key, int(document["n"]))) == [("a", 1), ("e", 5)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "3 of the kept documents of kind 'thing'" in caplog.text
    assert journal.recall("nothing", lambda key, document: key) == []
