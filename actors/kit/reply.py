"""What becomes of an order to an actor: it is done, it was refused, or nobody answered. One protocol for all orders.

An order is a message that carries a `Promise`, which the actor settles when it has acted. Who gives the order awaits
the promise here, and nowhere else, so that silence means the same in every route: a 503 that says so, never success.
It also says whether the order may yet be carried out, because who gave it has to know that before giving it again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, TypeVar

import trio

from actors.kit.mailbox import ActorGone, ActorSilent, Promise
from fleet.common.errors import NoAnswer

T = TypeVar("T")

log = logging.getLogger("fleet.orders")

PATIENCE: Final = 5.0
"""Seconds that an actor has to carry out an order; it needs them only after a crash."""


_MAYBE: Final = "the order may still be carried out"
_NEVER: Final = "the order was dropped and will not be carried out; see what there is now, and give it again if need be"


async def heard(
    promise: Promise[T], whom: str = "the dispatcher", *, within: float | None = None, details: str = _MAYBE
) -> T:
    """What became of an order; raises what it was refused with.

    Raises NoAnswer after `within` seconds (`PATIENCE`), saying `details`; and at once when the actor is gone for good,
    saying that nothing will come of it. Cancelled: the order stands.
    """
    limit = PATIENCE if within is None else within
    try:
        return await promise.wait(limit)
    except ActorSilent:
        log.warning("%s has not carried out an order within %g s", whom, limit)
        raise NoAnswer(f"no answer from {whom}", details=details) from None
    except ActorGone as gone:
        log.warning("an order was dropped: %s", gone)
        raise NoAnswer(f"{whom} has ended before it acted", details=_NEVER) from None


async def all_heard(promises: Sequence[Promise[T]], whom: str) -> list[T]:
    """What became of several orders, within one deadline. Raises as `heard` does. Cancelled: the orders stand."""
    deadline = trio.current_time() + PATIENCE
    return [await heard(each, whom, within=max(0.0, deadline - trio.current_time())) for each in promises]
