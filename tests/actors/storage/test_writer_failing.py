"""Writing fails, or its actor crashes: nothing is lost, and all of it is told once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.supervisor import keep_up
from actors.storage import journal as journals
from actors.storage.database_file import StoreLost
from actors.storage.journal import Document, Journal
from actors.storage.writer import MOST_RETRY, WRITE_WITHIN
from tests.actors.storage.writer_bench import Bench


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    bench = Bench()
    nursery.start_soon(keep_up, "store", bench.store.run)
    await wait_all_tasks_blocked()
    return bench


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
