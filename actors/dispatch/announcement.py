"""What a request is expected to be, told to the expectations before it is dispatched."""

from __future__ import annotations

from actors.state.scheduler_state import SchedulerState
from actors.state.ticket import PendingTicket
from fleet.protocol.prompt_parts import PromptParts, prompt_parts
from fleet.scheduling.choice.loaded_runners import wish_of
from fleet.scheduling.estimates.affinity.prompt_links import IMAGE, image_bytes


def announce(scheduler: SchedulerState, ticket: PendingTicket, now: float, *, thoroughly: bool = True) -> None:
    """Give the ticket its profile. Who asks is a key's name, else an address.

    `thoroughly`: with what of its prompt may be cached somewhere, which takes some microseconds to find out.
    """
    call = ticket.call
    if call is None or not ticket.runs:
        return
    legible = thoroughly and isinstance(call.body, bytes)
    parts = prompt_parts(call.body, call.headers) if legible and isinstance(call.body, bytes) else PromptParts()
    links, model = scheduler.prompt_links, ticket.model
    size = sum(len(each) - (image_bytes(each) if len(each) > IMAGE else 0) for each in parts.fields.values())
    if not parts.fields:
        size = len(call.body) if isinstance(call.body, bytes) else call.content_length or 0
    profile = scheduler.expectations.estimates.profile(
        (call.by or call.client, model, call.endpoint),
        size,
        now,
        links=links.links(model, parts.fields) if parts.fields else (),
        session=links.session(model, parts.session_kind, parts.session) if parts.session else None,
        options=wish_of(call.runner),
        num_predict=parts.most_tokens,
    )
    scheduler.expectations.arrived(ticket, profile, now)
