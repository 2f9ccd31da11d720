"""What a request is expected to be, told to the expectations before it is dispatched."""

from __future__ import annotations

from actors.state.ticket import PendingTicket
from fleet.scheduling.choice.expected_completion import ExpectedCompletion, asked_context


def announce(expectations: ExpectedCompletion, ticket: PendingTicket, now: float) -> None:
    """Give the ticket its profile. Who asks is a key's name, else an address."""
    call = ticket.call
    if call is None or not ticket.runs:
        return
    size = len(call.body) if isinstance(call.body, bytes) else call.content_length or 0
    asker = (call.by or call.client, ticket.model, call.endpoint)
    profile = expectations.estimates.profile(asker, size, now, options=asked_context(call.runner))
    expectations.arrived(ticket, profile, now)
