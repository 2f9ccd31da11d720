"""One cell of the table after the other: a scenario, a variant of it, a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.regret.figures import Figures, figures
from bench.regret.routers.ours import OURS
from bench.regret.routers.policies import make_router
from bench.regret.scenarios.catalogue import SCENARIOS
from bench.regret.world import World

LIMIT: Final = 12_000.0
"""Simulated seconds after which nobody is served any more: an hour and more beyond the longest scenario."""


class Cell(NamedTuple):
    """What to run."""

    scenario: int
    variant: str
    policy: str


class Result(NamedTuple):
    """And what came of it."""

    cell: Cell
    figures: Figures


def cells(scenarios: Sequence[int] | None, policies: Sequence[str]) -> list[Cell]:
    """Everything that there is to run; who reads no `max_concurrency` runs once for all that differ only in it."""
    return [
        Cell(number, variant, policy)
        for number in (scenarios or sorted(SCENARIOS))
        for variant in SCENARIOS[number].variants
        for policy in policies
        if policy in OURS or SCENARIOS[number].plain(variant)
    ]


def run(cell: Cell) -> Result:
    """One run; the same whenever it is made again."""
    setup = SCENARIOS[cell.scenario].build(cell.variant)
    world = World(setup)
    outcome = world.run(make_router(cell.policy, world, setup.seed), limit=LIMIT)
    return Result(cell, figures(setup, outcome))
