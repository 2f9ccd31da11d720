"""Memory stays flat: what a request needs is given back when it ends."""

from __future__ import annotations

import pytest

from tests.e2e.load.soak import Soak, in_front_of_processes

pytestmark = pytest.mark.slow

WARM_UP, SLICE, SLICES = 1000, 500, 6
GROWTH_KIB = 400
"""One kilobyte kept per request would be 500 in every slice. An allocator takes some hundred KiB now and then."""


async def test_memory_grows_no_more_once_the_fleet_is_warm() -> None:
    async with in_front_of_processes() as fleet:
        soak = Soak(fleet)
        before = (await soak.run(WARM_UP)).kib
        grown = []
        for _ in range(SLICES):
            after = (await soak.run(SLICE)).kib
            grown.append(after - before)
            if grown[-1] < GROWTH_KIB:
                break
            before = after
        assert grown[-1] < GROWTH_KIB, (grown, soak.tally.ends)
        assert soak.tally.ends["done"] > WARM_UP / 2
        fleet.assert_nothing_left()
