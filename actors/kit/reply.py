"""What becomes of an order to an actor: it is done, it was refused, or nobody answered. One protocol for all orders.

An order is a message that carries a `Promise`, which the actor settles when it has acted. Who gives the order awaits
the promise here, and nowhere else, so that silence means the same in every route: a 503 that says so, never success.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, TypeVar

import trio

from actors.kit.mailbox import ActorGone, Promise
from fleet.common.errors import NoAnswer

T = TypeVar("T")

log = logging.getLogger("fleet.orders")

PATIENCE: Final = 5.0
"""Seconds that an actor has to carry out an order; it needs them only after a crash."""


_MAYBE: Final = "the order may still be carried out"


async def heard(
    promise: Promise[T], whom: str = "the dispatcher", *, within: float | None = None, details: str = _MAYBE
) -> T:
    """What became of an order; raises what it was refused with.

    Raises NoAnswer after `within` seconds (`PATIENCE`), or at once when the actor is gone. Cancelled: the order stands.
    """
    limit = PATIENCE if within is None else within
    try:
        return await promise.wait(limit)
    except ActorGone:
        log.warning("%s has not carried out an order within %g s", whom, limit)
        raise NoAnswer(f"no answer from {whom}", details=details) from None


async def all_heard(promises: Sequence[Promise[T]], whom: str) -> list[T]:
    """What became of several orders, within one deadline. Raises as `heard` does. Cancelled: the orders stand."""
    deadline = trio.current_time() + PATIENCE
    return [await heard(each, whom, within=max(0.0, deadline - trio.current_time())) for each in promises]
