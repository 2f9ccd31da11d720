"""Memory stays flat: what a request needs is given back when it ends."""

from __future__ import annotations

import pytest

from tests.e2e.soak import Soak, in_front_of_processes

pytestmark = pytest.mark.slow

REQUESTS = 1500
GROWTH_KIB = 1024
"""The allocator's own unrest is some hundred KiB; one kilobyte kept per request would be 1,500."""


async def test_memory_after_3000_requests_is_what_it_was_after_1500() -> None:
    async with in_front_of_processes() as fleet:
        soak = Soak(fleet)
        first = await soak.run(REQUESTS)
        second = await soak.run(REQUESTS)
        assert second.kib - first.kib < GROWTH_KIB, soak.tally.ends
        assert soak.tally.ends["done"] > REQUESTS
        fleet.assert_nothing_left()
