"""The ring of log records: bounded in every way, whatever is logged, from whatever thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.process.log_buffer import FIELD_BYTES, FIELDS, MESSAGE_BYTES, LogRing
from web.process.log_format import configure_logging


@pytest.fixture
def ring() -> Iterator[LogRing]:
    """A ring that hears one logger."""
    ring, log = LogRing(), logging.getLogger("fleet.ringtest")
    level = log.level
    log.addHandler(ring)
    log.setLevel(logging.DEBUG)
    yield ring
    log.removeHandler(ring)
    log.setLevel(level)


log = logging.getLogger("fleet.ringtest")


def test_a_record_is_kept_with_its_fields_and_its_request(ring: LogRing) -> None:
    log.warning("server %s is %s", "a", "down", extra={"server": "a", "seconds": 1.5, "request_id": "r1"})
    (kept,), dropped = ring.snapshot()
    assert (kept.word, kept.logger, kept.message) == ("warning", "fleet.ringtest", "server a is down")
    assert (kept.meta, kept.request_id, dropped) == ({"server": "a", "seconds": 1.5}, "r1", 0)
    assert kept.at > 1_700_000_000


def test_the_oldest_make_room_and_are_counted() -> None:
    ring = LogRing(3)
    for number in range(5):
        ring.handle(record(str(number)))
    kept, dropped = ring.snapshot()
    assert ([each.message for each in kept], dropped) == (["2", "3", "4"], 2)
    assert ring.clear() == 3
    assert ring.snapshot() == ([], 0)


def test_the_words_of_an_exception_are_not_kept_only_its_kind_and_place(ring: LogRing) -> None:
    try:
        raise ValueError("the prompt was: hunter2")
    except ValueError:
        log.warning("it broke", exc_info=True)
    (kept,), _ = ring.snapshot()
    assert kept.meta["exception"] == "ValueError"
    assert str(kept.meta["raisedAt"]).startswith("test_log_buffer.py:")
    assert "hunter2" not in repr(kept)


class Awkward:
    """A value that cannot be written down."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("given", [("%d", ("x",)), ("%s", (Awkward(),))])
def test_a_record_that_cannot_be_read_harms_nobody(
    given: tuple[str, tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    ring = LogRing()
    ring.handle(record(*given))
    ring.handle(record("next"))
    assert [each.message for each in ring.snapshot()[0]] == ["next"]


def record(message: str, args: tuple[object, ...] = (), **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "fleet.x", "levelno": 20, "msg": message, "args": args})
    vars(made).update(extra)
    return made


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=600),
    st.binary(max_size=300),
    st.lists(st.text()),
)
NAMES = st.text(min_size=1, max_size=100).map(lambda name: f"x_{name}")
EXTRAS = st.dictionaries(NAMES, VALUES, max_size=40)


@given(st.lists(st.tuples(st.text(max_size=5_000), EXTRAS), max_size=12), st.integers(1, 5))
def test_whatever_is_logged_the_ring_stays_small_and_can_be_written_as_json(
    logged: list[tuple[str, dict[str, Any]]], most: int
) -> None:
    ring = LogRing(most)
    for message, extra in logged:
        ring.handle(record(message, request_id=message, **extra))
    kept, dropped = ring.snapshot()
    assert len(kept) == min(len(logged), most)
    assert dropped == len(logged) - len(kept)
    for each in kept:
        assert len(each.message.encode()) <= MESSAGE_BYTES
        assert len(each.request_id.encode()) <= FIELD_BYTES
        assert len(each.meta) <= FIELDS
        for name, value in each.meta.items():
            assert len(name.encode()) <= FIELD_BYTES
            assert not isinstance(value, str) or len(value.encode()) <= FIELD_BYTES
        assert orjson.loads(orjson.dumps(each.meta)) == each.meta


def test_text_that_is_no_unicode_is_kept_readable() -> None:
    ring = LogRing()
    ring.handle(record("bad \udcff name", path="\ud800"))
    (kept,), _ = ring.snapshot()
    assert (kept.message, kept.meta) == ("bad \\udcff name", {"path": "\\ud800"})


def test_any_thread_may_log(ring: LogRing) -> None:
    def many() -> None:
        for _ in range(300):
            log.info("tick")
            ring.snapshot()

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ring.snapshot()[0]) == 1200


def test_configured_logging_has_one_ring_however_often_it_is_configured() -> None:
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in ("fleet", "actors", "web")}
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("INFO", "text")
        first = LogRing.installed()
        configure_logging("DEBUG", "json")
        logging.getLogger("fleet.x").debug("heard")
        assert LogRing.installed() is first
        assert [each.message for each in first.snapshot()[0]] == ["heard"]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


def test_without_configured_logging_the_ring_is_empty() -> None:
    assert LogRing.installed().snapshot() == ([], 0)
