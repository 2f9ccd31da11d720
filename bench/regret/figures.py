"""What is told of a run: how long people waited, what it cost, and how evenly it was spread."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.regret.demand import Progress
from bench.regret.world import Outcome, Setup


@dataclass(frozen=True, slots=True)
class Figures:
    """One run. Seconds; a request that failed never had a first token, one whose client left had it no sooner."""

    requests: int
    p50: float
    p95: float
    p99: float
    completion: float
    """Mean of those that were completed."""
    loads: float
    """Per 1,000 requests."""
    wasted: float
    """GPU-seconds."""
    jain: float
    """Of clients' mean stretch: completion over what it would take alone on the best server."""
    failed: int
    left: int

    def as_json(self) -> dict[str, float | None]:
        """With None for what is infinite, which JSON cannot say."""
        return {key: None if math.isinf(value) else round(value, 4) for key, value in asdict(self).items()}


def figures(setup: Setup, outcome: Outcome) -> Figures:
    """The figures of a run, of what counts."""
    counted = [each for each in outcome.requests if each.settled]
    first = sorted(_first(each) for each in counted)
    done = [each for each in counted if each.outcome == "completed"]
    return Figures(
        len(counted),
        percentile(first, 0.50),
        percentile(first, 0.95),
        percentile(first, 0.99),
        sum(_whole(each) for each in done) / max(1, len(done)),
        1000.0 * outcome.loads / max(1, len(counted)),
        outcome.wasted,
        _fairness(setup, done),
        sum(each.failed for each in counted),
        sum(each.outcome == "left" for each in counted),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above; 0 of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 if all are equal, 1/n if one has everything."""
    squares = sum(each * each for each in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def _first(progress: Progress) -> float:
    if progress.failed:
        return math.inf
    when = progress.first if progress.first is not None else progress.ended
    assert when is not None
    return when - progress.arrived


def _whole(progress: Progress) -> float:
    assert progress.ended is not None
    return progress.ended - progress.arrived


def _fairness(setup: Setup, done: Sequence[Progress]) -> float:
    prefill = max(each.profile.prefill_per_second for each in setup.servers)
    speed = max(each.profile.tokens_per_second for each in setup.servers)
    stretches: dict[str, list[float]] = defaultdict(list)
    for each in done:
        alone = each.demand.prompt_tokens / prefill + each.demand.tokens / speed
        stretches[each.demand.client].append(_whole(each) / alone)
    return jain([sum(each) / len(each) for each in stretches.values()])
