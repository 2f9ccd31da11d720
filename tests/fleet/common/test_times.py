"""How moments are written."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common import times

MOMENT = 1_700_000_000.1239
EPOCHS = st.floats(0, 4e9, allow_nan=False)


def test_times_are_iso_with_milliseconds() -> None:
    assert times.iso_read(MOMENT) == "2023-11-14T22:13:20.123Z"
    assert times.iso(MOMENT) == "2023-11-14T22:13:20.124Z"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (times.iso_seconds, "2023-11-14T22:13:20Z"),
        (times.compact, "20231114T221320Z"),
        (times.http_date, "Tue, 14 Nov 2023 22:13:20 GMT"),
    ],
)
def test_each_format_has_a_name(form: object, text: str) -> None:
    assert form(MOMENT) == text  # type: ignore[operator]


@given(EPOCHS)
def test_the_text_and_the_number_of_an_answer_agree(epoch: float) -> None:
    assert round(datetime.fromisoformat(times.iso(epoch)).timestamp() * 1000) == times.milliseconds(epoch)


@given(EPOCHS)
def test_no_format_runs_ahead_of_the_clock_but_the_rounded_one(epoch: float) -> None:
    assert datetime.fromisoformat(times.iso_read(epoch)).timestamp() <= epoch + 1e-6
    assert datetime.fromisoformat(times.iso_seconds(epoch)).timestamp() <= epoch + 1e-6
    assert parsedate_to_datetime(times.http_date(epoch)).timestamp() <= epoch


def test_what_is_not_known_stays_so() -> None:
    assert (times.iso(None), times.milliseconds(None)) == (None, None)


@given(st.floats(0, 1e6), st.floats(1e9, 4e9), st.floats(-1e6, 1e6))
def test_a_reading_says_a_moment_twice_alike(now: float, wall: float, moment: float) -> None:
    at = times.ClockReading(now, wall)
    assert at.epoch(now) == wall
    assert at.epoch(moment) == pytest.approx(wall + moment - now)
    assert at.epoch_ms(moment) == times.milliseconds(at.epoch(moment))
    assert at.iso(moment) == times.iso(at.epoch(moment))
    assert at.epoch(None) is None
    assert at.epoch_ms(None) is None
