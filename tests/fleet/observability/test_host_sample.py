"""Samples put together of parts, and what is made of numbers that make no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fleet.observability.host_sample import (
    MOST_GPUS,
    Counted,
    Gpu,
    HostSample,
    Measured,
    amount,
    busy_percent,
    count,
    percent,
    put_together,
    rate,
    readable,
)

IDLE = {"user": 10.0, "idle": 90.0, "iowait": 0.0, "guest": 5.0}


def test_a_sample_has_what_its_parts_found_and_nothing_else() -> None:
    parts: list[Measured] = [
        {"memory_percent": 40.0, "memory_used": 7},
        {},
        {"power": {"cpu": 30.0}},
        {"gpus": (Gpu("nvidia0", "x", percent=10.0, watts=100.0), Gpu("nvidia1", "x", percent=None, watts=50.0))},
        {"gpus": (Gpu("amd0", "y", percent=30.0),)},
    ]
    sample = put_together(5.0, parts)
    assert (sample.at, sample.memory_percent, sample.memory_used) == (5.0, 40.0, 7)
    assert (sample.cpu_percent, sample.disk_percent, sample.memory_available) == (None, None, None)
    assert sample.power == {"cpu": 30.0, "gpu": 150.0}
    assert (sample.watts, sample.gpu_percent) == (180.0, 20.0)
    assert [gpu.id for gpu in sample.gpus] == ["nvidia0", "nvidia1", "amd0"]


def test_what_nobody_told_is_absent_and_a_measured_zero_is_zero() -> None:
    nothing = put_together(1.0, [])
    assert nothing == HostSample(1.0)
    assert (nothing.watts, nothing.gpu_percent, dict(nothing.power)) == (None, None, {})
    silent = put_together(1.0, [{"gpus": (Gpu("amd0", "y"),)}])
    assert (silent.watts, silent.gpu_percent, dict(silent.power)) == (None, None, {})
    still = put_together(1.0, [{"gpus": (Gpu("amd0", "y", percent=0.0, watts=0.0),)}])
    assert (still.watts, still.gpu_percent, dict(still.power)) == (0.0, 0.0, {"gpu": 0.0})


def test_a_machine_full_of_gpus_is_bounded() -> None:
    gpus = tuple(Gpu(f"nvidia{index}", "x") for index in range(MOST_GPUS + 5))
    assert len(put_together(1.0, [{"gpus": gpus}]).gpus) == MOST_GPUS


@pytest.mark.parametrize("nonsense", [None, "7", True, -1, -0.5, math.nan, math.inf, [1], object()])
def test_nonsense_is_no_measurement(nonsense: Any) -> None:
    assert (percent(nonsense), amount(nonsense), count(nonsense)) == (None, None, None)


def test_numbers_that_make_sense_are_taken_in_our_units() -> None:
    assert (percent(0), percent(100), percent(100.1), percent(65535)) == (0.0, 100.0, None, None)
    assert (amount(12_500, 1e-3), count(7.9), amount(0)) == (12.5, 7, 0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("NVIDIA H100", "NVIDIA H100"),
        (b"Tesla T4\0", "Tesla T4"),
        ("a\nb\x1b[31m", "a b [31m"),
        (None, "GPU"),
        (" ", "GPU"),
        (b"\xff", "\ufffd"),
        ("x" * 500, "x" * 80),
    ],
)
def test_a_name_is_fit_for_a_label(name: object, shown: str) -> None:
    assert readable(name, "GPU") == shown


@pytest.mark.parametrize(
    ("before", "now", "watts"),
    [
        (None, Counted(10, 500), None),
        (Counted(0, 100), Counted(10, 350), 25.0),
        (Counted(0, 100), Counted(10, 100), 0.0),
        (Counted(0, 990, 1000), Counted(10, 40, 1000), 5.0),
        (Counted(0, 990), Counted(10, 40), None),
        (Counted(0, 990, 500), Counted(10, 40, 500), None),
        (Counted(10, 100), Counted(10, 200), None),
        (Counted(0, 100), Counted(301, 200), None),
    ],
)
def test_power_is_a_difference_of_two_counters(before: Counted | None, now: Counted, watts: float | None) -> None:
    """It may wrap around once; with no end known, no time between, or too much of it, nobody knows."""
    assert rate(before, now) == watts


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        (None, IDLE, None),
        (IDLE, IDLE, None),
        (IDLE, {**IDLE, "user": 13.0, "idle": 97.0}, 30.0),
        (IDLE, {**IDLE, "user": 11.0, "idle": 91.0, "iowait": 2.0}, 25.0),
        (IDLE, {**IDLE, "user": 11.0, "guest": 6.0}, 100.0),
        (IDLE, {**IDLE, "user": 11.0, "idle": 80.0}, 100.0),
    ],
)
def test_processors_are_busy_when_they_neither_rest_nor_wait_for_the_disk(
    before: dict[str, float] | None, now: dict[str, float], share: float | None
) -> None:
    assert busy_percent(before, now) == share
