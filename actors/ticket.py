"""A ticket that somebody waits for, and how it is settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from fleet.errors import FleetError
from fleet.queue import Ticket

if TYPE_CHECKING:
    from actors.lease import Lease
    from fleet.call import Call


@dataclass(slots=True, eq=False)
class PendingTicket(Ticket):
    """The answer lives here, not in the return value of an await: a cancellation before waking up loses nothing.

    Settled once: by the dispatcher (`lease` or `refusal`) or by the waiter (`withdrawn`).
    """

    call: Call | None = None
    event: trio.Event = field(default_factory=trio.Event)
    lease: Lease | None = None
    refusal: FleetError | None = None
    withdrawn: bool = False

    @property
    def open(self) -> bool:
        """Whether nobody has settled it."""
        return self.lease is None and self.refusal is None and not self.withdrawn

    def grant(self, lease: Lease) -> None:
        self.lease = lease
        self.event.set()

    def refuse(self, refusal: FleetError) -> None:
        self.refusal = refusal
        self.event.set()
