"""Scenario 12 with every policy of ours: two requests that kill runners, and sixteen at once for a cold model."""

from __future__ import annotations

import pytest

from bench.regret.routers.ours import OURS
from bench.regret.routers.policies import make_router
from bench.regret.runs import LIMIT
from bench.regret.scenarios.catalogue import SCENARIOS
from bench.regret.world import World


@pytest.mark.parametrize("policy", OURS)
def test_no_request_of_another_client_fails_but_streams_on_the_runner_that_died_first(policy: str) -> None:
    (variant,) = SCENARIOS[12].variants
    setup = SCENARIOS[12].build(variant)
    world = World(setup)
    outcome = world.run(make_router(policy, world, setup.seed), limit=LIMIT)
    failed = [each for each in outcome.requests if each.outcome != "completed"]
    others = [each for each in failed if each.demand.client != "poisoner"]
    assert [(each.attempts, each.outcome) for each in failed if each not in others] == [(2, "refused 500")] * 2
    assert all((each.attempts, each.outcome) == (1, "streamerror") for each in others)
    assert len(others) <= 2, "one runner of two slots, for each of the two"
