"""A product as it is served, and what its servers saw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tests.e2e.support import MODELS, inference_seen
from tests.kit.fleets.served import QUICK, Served, served
from web.simulator.engine.host import SeenRequest

SWIFT = replace(QUICK, tokens_per_second=5000.0, prefill_per_second=1e6)


@asynccontextmanager
async def product(**config: Any) -> AsyncIterator[Served]:
    async with served("a", models=MODELS, profile=SWIFT, **config) as fleet:
        yield fleet
        await fleet.until_idle()
        fleet.assert_nothing_left()


def last_seen(fleet: Served) -> SeenRequest:
    return inference_seen(fleet.sims["a"].host)[-1]
