"""Work in steps (`fleet.common.steps`), taken a few at a time between the turns of everybody else."""

from __future__ import annotations

from typing import Final, TypeVar

import trio

from actors.kit.clock import stopwatch
from fleet.common.steps import Steps
from web.http.per_run import PerRun

T = TypeVar("T")

TURN: Final = 0.001
"""Seconds of such work in one turn of the event loop, of all who have some together."""
_one_at_a_time: Final = PerRun(trio.Lock)


async def paced(steps: Steps[T]) -> T:
    """Take all steps, in turn with others who have some. Raises what they raise. Cancelled: between two steps."""
    one_at_a_time = _one_at_a_time.get()
    while True:
        async with one_at_a_time:
            until = stopwatch() + TURN
            try:
                while stopwatch() < until:
                    next(steps)
            except StopIteration as end:
                value: T = end.value
                return value
