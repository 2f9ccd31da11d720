"""Whether something disturbs the data plane: the same load with and without it, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median

from bench.measure import Bench, NotMeasured, Running
from bench.reporting.results import closed_metrics, stream_metrics
from bench.scenarios import REQUESTS, Scenario, Streams

Parts = Sequence[tuple[Scenario, Sequence[str]]]
"""Loads, and the figures of each that count."""


def ratios(
    bench: Bench, running: Running, parts: Parts, disturbance: Callable[[], AbstractContextManager[object]]
) -> Mapping[str, float]:
    """How many times as long everything takes while something goes on beside it, by request and figure.

    Of each figure the median of its ratios, round by round, so that what slows the machine down slows both sides.
    `disturbance` raises NotMeasured at its end if it was not what it should have been.
    """
    found: dict[str, float] = {}
    for scenario, metrics in parts:
        rounds = []
        for _ in range(bench.options.rounds):
            alone = _load(bench, scenario, running)
            with disturbance():
                rounds.append((_load(bench, scenario, running), alone))
        for metric in metrics:
            found[f"x {scenario.request} {metric}"] = median(both[metric] / alone[metric] for both, alone in rounds)
    return found


def _load(bench: Bench, scenario: Scenario, running: Running) -> Mapping[str, float]:
    line = bench.load(bench.words(scenario, running), scenario.request)
    metrics = stream_metrics(line) if isinstance(scenario.load, Streams) else closed_metrics(line)
    if metrics["errors"]:
        raise NotMeasured(f"{metrics['errors']:.0f} requests failed ({REQUESTS[scenario.request].path})")
    return metrics
