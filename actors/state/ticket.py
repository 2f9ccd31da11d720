"""A ticket that somebody waits for, and how it is settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fleet.common.errors import FleetError
from fleet.scheduling.wait_queue import Ticket

if TYPE_CHECKING:
    from actors.state.lease import Lease
    from fleet.protocol.call import Call


# A grant is not the result of waiting for it. A waiter that is cancelled does not run at once, and what the dispatcher
# decides before it does could not be returned by an await any more: the slot would be held by nobody, for good. So the
# lease is put into the ticket first, the event only says that there is something to see, and the waiter's `finally`
# looks at the ticket, however the waiting ended.
#
# Of dispatcher and waiter, one settles it. Both look at `open` and then act without an await in between, which is all
# the mutual exclusion there is: whoever withdraws sets the mark at once and tells the dispatcher by message, and a
# dispatcher that finds the mark before it has read the message takes its grant back. The event is made by who waits.
# Nearly always nobody does, because a dispatcher at rest decides within `cast`; and since an event that is made after
# the decision would never be set, who submits asks `open` first, and nothing may be awaited between that and `settled`.
@dataclass(slots=True, eq=False)
class PendingTicket(Ticket):
    """The answer lives here, not in the return value of an await: a cancellation before waking up loses nothing.

    Settled once: by the dispatcher (`lease` or `refusal`) or by the waiter (`withdrawn`).
    """

    call: Call | None = None
    event: trio.Event | None = None
    lease: Lease | None = None
    refusal: FleetError | None = None
    withdrawn: bool = False

    @property
    def open(self) -> bool:
        """Whether nobody has settled it."""
        return self.lease is None and self.refusal is None and not self.withdrawn

    async def settled(self) -> None:
        """Returns once it was granted or refused; most are before anybody asks."""
        if self.event is None:
            self.event = trio.Event()
        await self.event.wait()

    def grant(self, lease: Lease) -> None:
        self.lease = lease
        self._tell()

    def refuse(self, refusal: FleetError) -> None:
        self.refusal = refusal
        self._tell()

    def _tell(self) -> None:
        if self.event is not None:
            self.event.set()
