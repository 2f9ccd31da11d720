"""A short soak with many clients that leave at random moments: `python -m tests.e2e.load.soak` is the long one."""

from __future__ import annotations

import pytest

from tests.e2e.load.soak import Soak, check, in_front_of_processes

pytestmark = pytest.mark.slow

REQUESTS = 800


async def test_nothing_grows_while_a_fifth_of_the_clients_leaves() -> None:
    async with in_front_of_processes() as fleet:
        soak = Soak(fleet, leaving=0.2)
        first = await soak.run(REQUESTS // 2)
        last = await soak.run(REQUESTS // 2)
        fleet.assert_nothing_left()
        check(first, last)
        assert soak.tally.ends["left"] > REQUESTS // 8
        assert soak.tally.ends["done"] > REQUESTS // 3
        assert not soak.tally.ends["cut"]
