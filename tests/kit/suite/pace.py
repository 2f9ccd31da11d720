"""Bounds in real time that the product promises, held on a machine that may be busy with other things."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

PATIENCE = 60.0
"""Seconds of trying."""


async def soonest(attempt: Callable[[], Awaitable[float]], limit: float) -> float:
    """What the first attempt below `limit` took, or the best of all within a minute.

    A busy machine makes anything late now and then; a fault makes it late every time.
    """
    best, give_up = await attempt(), trio.current_time() + PATIENCE
    while best >= limit and trio.current_time() < give_up:
        best = min(best, await attempt())
    return best
