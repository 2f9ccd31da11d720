"""Figures of the last minute: what comes in goes out again, and nothing is left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.observability.dashboard.live_figures import WINDOW, LiveFigures


class Tried(NamedTuple):
    server: str = "a"
    outcome: str = "completed"
    started: float = 0.0
    first_byte: float | None = 0.5
    ended: float = 2.0


@dataclass
class Ended:
    server: str = "a"
    outcome: str = "completed"
    total_seconds: float = 2.0
    output_tokens: int | None = 100
    stream: bool = True
    began: float = 0.0
    tries: tuple[Tried, ...] = (Tried(),)


def test_sums_of_the_fleet_and_of_each_server() -> None:
    figures = LiveFigures(0.0)
    figures.note([Ended(), Ended(server="b", outcome="backend_error", output_tokens=None), Ended(server="")])
    assert (figures.fleet.count, figures.fleet.errors, figures.fleet.tokens) == (3, 1, 200)
    assert figures.fleet.latency == 2.0
    assert figures.of("b").error_rate == 1.0
    assert set(figures.servers) == {"a", "b"}
    assert figures.span(30.0) == 30.0
    assert figures.span(0.1) == 1.0
    assert figures.span(500.0) == WINDOW


def test_of_nothing_nothing_is_known() -> None:
    nothing = LiveFigures(0.0).of("nobody")
    assert (nothing.error_rate, nothing.latency, nothing.first_byte(0.95)) == (None, None, None)


def test_the_wait_for_a_slot_is_the_fleets_not_the_servers() -> None:
    figures = LiveFigures(0.0)
    figures.note([Ended(tries=(Tried(started=4.0, first_byte=4.2),))])
    assert figures.of("a").first_byte(0.5) == pytest.approx(0.2, rel=0.06)


def test_what_another_server_wasted_is_not_the_time_of_the_one_that_answered() -> None:
    figures = LiveFigures(0.0)
    hung = Tried("b", "first_byte_timeout", 0.0, None, 30.0)
    figures.note([Ended(tries=(hung, Tried(started=30.0, first_byte=30.4, ended=31.0)))])
    assert figures.of("a").first_byte(0.5) == pytest.approx(0.4, rel=0.06)
    assert figures.of("b").first_byte(0.5) is None


def test_answers_in_one_piece_say_nothing_about_the_first_byte() -> None:
    figures = LiveFigures(0.0)
    figures.note([Ended(stream=False), Ended(tries=(Tried(first_byte=None),)), Ended(tries=())])
    assert figures.of("a").first_byte(0.5) is None


def test_percentiles() -> None:
    figures = LiveFigures(0.0)
    figures.note([Ended(tries=(Tried(first_byte=number / 100),)) for number in range(1, 101)])
    assert figures.of("a").first_byte(0.5) == pytest.approx(0.5, rel=0.06)
    assert figures.of("a").first_byte(0.95) == pytest.approx(0.95, rel=0.06)
    assert figures.of("a").first_byte(1.0) == pytest.approx(1.0, rel=0.06)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.3), st.integers(0, 9), st.booleans()), max_size=60))
def test_after_a_minute_everything_is_gone(ended: list[tuple[str, float, int, bool]]) -> None:
    figures, now = LiveFigures(0.0), 0.0
    for server, gap, tokens, failed in ended:
        now += gap
        outcome = "backend_error" if failed else "completed"
        figures.note([Ended(server, outcome, total_seconds=gap, output_tokens=tokens, began=now - gap)])
        figures.settle(now)
    assert figures.fleet.count == len(ended)
    figures.settle(now + WINDOW + 1)
    fleet = figures.fleet
    assert (fleet.count, fleet.errors, fleet.tokens, fleet.microseconds, fleet._bins) == (0, 0, 0, 0, {})
    assert figures.servers == {}


def test_more_requests_than_are_kept_make_the_window_shorter() -> None:
    figures = LiveFigures(0.0, most=10)
    for number in range(30):
        figures.note([Ended(total_seconds=0.0, began=float(number))])
    assert figures.fleet.count == 10
    assert figures.span(29.0) == 10.0
