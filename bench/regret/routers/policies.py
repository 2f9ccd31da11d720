"""All routers by name. What is ours goes by the name that the configuration gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.regret.router import Router
from bench.regret.routers.holding import HoldingOracle
from bench.regret.routers.oracle import TEMPERS, GreedyOracle
from bench.regret.routers.ours import OURS, Ours
from bench.regret.routers.rivals import RIVALS, Rival
from bench.regret.world import World

ORACLES: Final = tuple(f"oracle/{n}" for n in range(len(TEMPERS)))
PRESENT: Final = "weighted"
"""The default today."""
POLICIES: Final = (*OURS, *RIVALS, *ORACLES)


def make_router(policy: str, world: World, seed: int = 0) -> Router:
    """A router for one run. Raises KeyError for a name that is in none of the lists."""
    known = [server.known for server in world.setup.servers]
    if policy in ORACLES:
        temper = TEMPERS[ORACLES.index(policy)]
        return HoldingOracle(world, temper) if temper.holds else GreedyOracle(world, temper)
    if policy in OURS:
        return Ours(policy, known, seed)
    return Rival(policy, RIVALS[policy], known, seed)


def wanted(names: Sequence[str]) -> tuple[str, ...]:
    """The policies of a command line: `oracle` stands for all of its tempers, nothing for everything."""
    if not names:
        return POLICIES
    return tuple(each for name in names for each in (ORACLES if name == "oracle" else (name,)))
