"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common import wording


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"),
        (math.nan, "—"),
        (0.0, "0 s"),
        (0.00042, "420 µs"),
        (0.0042, "4.2 ms"),
        (0.92, "920 ms"),
        (0.9996, "1 s"),
        (1.84, "1.84 s"),
        (12.4, "12.4 s"),
        (59.96, "1m 00s"),
        (125.0, "2m 05s"),
        (3_599.7, "1h 00m"),
        (11_040.0, "3h 04m"),
        (439_200.0, "5d 02h"),
        (-1.0, "0 s"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "—"), (0.9, "0 s"), (48.9, "48 s"), (194.9, "3m 14s")])
def test_ages_are_never_more_than_they_are(seconds: float | None, text: str) -> None:
    assert wording.age(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "—"), (0.0, "0%"), (1.0, "100%"), (0.012, "1.2%"), (0.0002, "<0.1%"), (0.9999, ">99.9%"), (0.5, "50.0%")],
)
def test_percent(share: float | None, text: str) -> None:
    assert wording.percent(share) == text


@given(st.floats(min_value=1e-9, max_value=1 - 1e-9))
def test_no_error_is_rounded_to_none_and_no_success_to_all(share: float) -> None:
    assert wording.percent(share) not in ("0%", "0.0%", "100%", "100.0%")


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "—"), (0, "0"), (999, "999"), (1_200, "1.2k"), (35_000, "35k"), (999_600, "1.0M"), (1_000_000, "1.0M")],
)
def test_counts(number: float | None, text: str) -> None:
    assert wording.count(number) == text


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [(4.24, "req", "4.2 req/s"), (41.2, "req", "41 req/s"), (8_900, "tok", "8.9k tok/s"), (0, "req", "0 req/s")],
)
def test_rates(number: float, unit: str, text: str) -> None:
    assert wording.rate(number, unit) == text
    assert wording.rate(None, unit) == "—"


@pytest.mark.parametrize(
    ("number", "text"), [(None, "—"), (512, "512 B"), (851_443_712, "812 MiB"), (5_046_586_573, "4.7 GiB")]
)
def test_sizes(number: float | None, text: str) -> None:
    assert wording.size(number) == text


def test_power_ratios_and_plurals() -> None:
    assert [wording.power(each) for each in (None, 240.0, 18_240.0)] == ["—", "240 W", "18.2 kW"]
    assert [wording.times(each) for each in (1.5, 4.97)] == ["1.5×", "5×"]
    assert [wording.plural(each, "server") for each in (0, 1, 2)] == ["0 servers", "1 server", "2 servers"]
    assert wording.plural(2, "entry", "entries") == "2 entries"


def test_a_line_is_one_line() -> None:
    assert wording.line("a\x1b[31m\nb\t c", 20) == "a [31m b c"
    assert wording.line("x" * 50, 10) == "x" * 9 + "…"
