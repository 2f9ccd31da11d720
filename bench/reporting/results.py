"""What was measured, and the arithmetic on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


@dataclass
class Results:
    """Values by scenario, contender and metric, one per round; and why something has none."""

    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, scenario: str, contender: str, metrics: Mapping[str, float]) -> None:
        rows = self.samples.setdefault(scenario, {}).setdefault(contender, {})
        for metric, value in metrics.items():
            rows.setdefault(metric, []).append(value)

    def skip(self, scenario: str, contender: str, reason: str) -> None:
        self.reasons.setdefault(scenario, {})[contender] = reason

    def values(self, scenario: str, contender: str, metric: str) -> list[float]:
        return self.samples.get(scenario, {}).get(contender, {}).get(metric, [])

    def spread(self, scenario: str, contender: str, metric: str) -> Spread | None:
        return spread(self.values(scenario, contender, metric))

    def ratio(self, scenario: str, metric: str, contender: str, reference: str) -> Spread | None:
        """Round by round, so that what slows the machine down for a while slows both sides."""
        ours, theirs = (self.values(scenario, name, metric) for name in (contender, reference))
        return spread([a / b for a, b in zip(ours, theirs, strict=False) if b])

    def difference(self, scenario: str, metric: str, contender: str, reference: str) -> Spread | None:
        ours, theirs = (self.values(scenario, name, metric) for name in (contender, reference))
        return spread([a - b for a, b in zip(ours, theirs, strict=False)])

    def reason(self, scenario: str, *contenders: str) -> str:
        """Why there is no figure that involves all these contenders."""
        told, measured = self.reasons.get(scenario, {}), self.samples.get(scenario)
        if found := next((f"{name}: {told[name]}" for name in contenders if name in told), None):
            return found
        absent = next((name for name in contenders if name not in (measured or {})), "it")
        return f"{absent} was not part of this run" if measured else "not part of this run"


def closed_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one `load closed` line; `errors` counts every kind."""
    times = {f"{name}_us": float(value) for name, value in line["latency_us"].items()}
    return {"rate": float(line["rate"]), **times, "errors": float(sum(line["errors"].values()))}


def stream_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one `load streams` line; a stream that failed or did not end is an error."""
    return {
        "rate": float(line["rate"]),
        "first_p50_us": float(line["first_token_us"]["p50"]),
        "first_p99_us": float(line["first_token_us"]["p99"]),
        "gap_p99_us": float(line["gap_us"]["p99"]),
        "gap_max_us": float(line["gap_us"]["max"]),
        "errors": float(line["streams"] - line["completed"]),
    }
