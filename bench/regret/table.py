"""The table, as Markdown for people and as JSON for programs. The same runs give the same text, byte for byte."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final

from bench.regret.figures import Figures
from bench.regret.routers.ours import OURS
from bench.regret.routers.planning import CANDIDATE
from bench.regret.routers.policies import ORACLES, PRESENT
from bench.regret.runs import Result
from bench.regret.scenarios.catalogue import SCENARIOS

LEAST: Final = 0.1
"""Seconds below which differences are nobody's business: no ratio is taken of less."""
_HEAD: Final = (
    "| policy | first token p50 | p95 | p99 | completion | loads per 1,000 | wasted GPU-s | Jain | failed | left "
    "| regret |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|\n"
)
ROW = dict[str, Figures]


def markdown(results: Sequence[Result]) -> str:
    """A summary, then one table for each variant."""
    grouped = group(results)
    parts = ["# Regret\n\nSeconds. Regret: p95 to the first token over the oracle's. See README.md.\n"]
    for policy, what in ((PRESENT, "The present default"), (CANDIDATE, "The policy that plans")):
        if any(policy in row for row in grouped.values()):
            parts.append(_summary(grouped, policy, what))
    for (number, variant), row in grouped.items():
        parts.append(f"\n## {number}. {SCENARIOS[number].name}: {variant}\n\n{_HEAD}")
        best = oracle(row)
        for policy, each in sorted(row.items(), key=lambda item: (item[1].p95, item[1].completion)):
            if policy not in ORACLES:
                parts.append(_line(policy, each, best))
        if best is not None:
            parts.append(_line("**oracle**", best, best))
    return "".join(parts)


def as_json(results: Sequence[Result]) -> str:
    """A list of runs, a line each; times that are infinite are null."""
    rows = [
        {"scenario": cell.scenario, "variant": cell.variant, "policy": cell.policy, **figures.as_json()}
        for cell, figures in results
    ]
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def group(results: Sequence[Result]) -> dict[tuple[int, str], ROW]:
    """By scenario and variant; those who read no `max_concurrency` stand in each variant that differs only in it."""
    grouped: dict[tuple[int, str], ROW] = {}
    for cell, figures in results:
        grouped.setdefault((cell.scenario, cell.variant), {})[cell.policy] = figures
    for (number, variant), row in grouped.items():
        if "K=" in variant:
            same = grouped.get((number, variant.split("K=")[0] + "K=4"), {})
            row.update({policy: each for policy, each in same.items() if policy not in OURS})
    return grouped


def oracle(row: ROW) -> Figures | None:
    """The best of its tempers, afterwards: who fails fewest, then who waits least."""
    tempers = [row[each] for each in ORACLES if each in row]
    return min(tempers, key=lambda each: (each.failed, each.p95, each.completion), default=None)


def best_other(row: ROW) -> tuple[str, Figures] | None:
    """The best policy of somebody else's: the smallest p95 of those that fail no more than one in a hundred."""
    others = [(name, each) for name, each in row.items() if name not in OURS and name not in ORACLES]
    return min(others, key=lambda item: (item[1].failed * 100 > item[1].requests, item[1].p95), default=None)


def _summary(grouped: dict[tuple[int, str], ROW], policy: str, what: str) -> str:
    lines = [
        f"\n{what}, `{policy}`, against the oracle and the best of the others.\n\n"
        "| scenario | first token p95 | oracle | regret | best other | its p95 "
        "| loads per 1,000 | oracle | other | failed |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    ]
    for (number, variant), row in grouped.items():
        ours, best, other = row.get(policy), oracle(row), best_other(row)
        if ours is None or best is None or other is None:
            continue
        name, figures = other
        lines.append(
            f"| {number}. {SCENARIOS[number].name}: {variant} | {_s(ours.p95)} | {_s(best.p95)} "
            f"| {_ratio(ours.p95, best.p95)} | {name} | {_s(figures.p95)} "
            f"| {ours.loads:.0f} | {best.loads:.0f} | {figures.loads:.0f} | {ours.failed} |\n"
        )
    return "".join(lines)


def _line(policy: str, each: Figures, best: Figures | None) -> str:
    regret = _ratio(each.p95, best.p95) if best is not None else ""
    return (
        f"| {policy} | {_s(each.p50)} | {_s(each.p95)} | {_s(each.p99)} | {_s(each.completion)} | {each.loads:.0f} "
        f"| {each.wasted:.0f} | {each.jain:.2f} | {each.failed} | {each.left} | {regret} |\n"
    )


def _s(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.2f}"


def _ratio(one: float, other: float) -> str:
    if math.isinf(one) or math.isinf(other):
        return "" if math.isinf(other) else "never"
    return f"{max(one, LEAST) / max(other, LEAST):.2f}"
