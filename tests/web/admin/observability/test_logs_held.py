"""Log lines that wait for a moment: first it is said where the fleet listens."""

from __future__ import annotations

import io
import logging

import pytest

from web.process import log_format
from web.process.log_format import PatientHandler


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [PatientHandler(stream)])
    return stream


def test_warnings_wait_until_they_are_let_go(out: io.StringIO) -> None:
    log_format.hold()
    logging.getLogger("fleet.x").warning("first")
    out.write("proxy\n")
    log_format.release()
    logging.getLogger("fleet.x").warning("second")
    assert out.getvalue().split() == ["proxy", "first", "second"]


def test_an_error_does_not_wait_and_comes_after_what_was_before_it(out: io.StringIO) -> None:
    log_format.hold()
    logging.getLogger("fleet.x").warning("before")
    logging.getLogger("fleet.x").error("now")
    assert out.getvalue().split() == ["before", "now"]


def test_nothing_waits_for_longer_than_it_was_told_to_nor_in_any_number(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_format.hold(0.0)
    logging.getLogger("fleet.x").warning("one")
    monkeypatch.setattr(log_format, "MOST_HELD", 2)
    log_format.hold()
    for word in ("two", "three", "four"):
        logging.getLogger("fleet.x").warning(word)
    assert out.getvalue().split() == ["one", "two", "three", "four"]
