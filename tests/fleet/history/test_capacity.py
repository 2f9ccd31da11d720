from __future__ import annotations

import pytest

from fleet.history.capacity import DAY, HOUR, WEEK, Forecast, forecast, peak

NOW = 100 * WEEK + 5 * HOUR + 17.0
NEXT = 100 * WEEK + 6 * HOUR


def test_without_a_past_nothing_is_foreseen() -> None:
    assert forecast({}, 4.0, NEXT, NOW) == Forecast(None, 0)
    assert (Forecast(None, 0).confidence, Forecast(None, 0).recommendation) == (0.0, "maintain")
    assert forecast({NEXT - WEEK: 10.0}, 0.0, NEXT, NOW).saturation is None


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ({NEXT - WEEK: 3600.0, NEXT - 2 * WEEK: 7200.0}, Forecast(1.5 / 4, 2)),
        ({NEXT - 5 * WEEK: 0.0, NEXT - WEEK: 4 * 3600.0}, Forecast(0.25, 4)),  # quiet weeks between count as such
        ({NEXT - DAY: 7200.0, NEXT - 2 * DAY: 3600.0}, Forecast(1.5 / 4, 2)),
        ({NEXT - 2 * HOUR: 1800.0}, Forecast(0.125, 1)),
        ({NEXT - HOUR: 99.0}, Forecast(None, 0)),  # an hour that is not over tells nothing
    ],
)
def test_it_is_like_the_same_hour_of_weeks_or_days_before(hours: dict[int, float], expected: Forecast) -> None:
    found = forecast(hours, 4.0, NEXT, NOW)
    assert found.samples == expected.samples
    assert found.saturation == (None if expected.saturation is None else pytest.approx(expected.saturation))


@pytest.mark.parametrize(("saturation", "word"), [(0.9, "scale-up"), (0.5, "maintain"), (0.1, "scale-down")])
def test_what_is_recommended(saturation: float, word: str) -> None:
    assert Forecast(saturation, 4).recommendation == word


def test_the_fullest_of_the_next_hours_counts() -> None:
    hours = {NEXT - WEEK + ahead * HOUR: 360.0 * ahead for ahead in range(30)}
    assert peak(hours, 1.0, NOW).saturation == pytest.approx(2.3)
