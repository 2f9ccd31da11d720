"""How a finished request is shown: the reference's fields, and beside them what else is known of it."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType

from actors.system import System
from fleet.common.times import milliseconds
from fleet.history.request_row import RequestRow
from web.admin.kit.answers import BYTES, EPOCH_MS, MS, JsonObject
from web.admin.kit.schemas import OneOf

OUTCOME_CLASSES = ("answered", "refused", "failed", "left")


class AttemptJson(JsonObject, kw_only=True):
    """One attempt of a request that had several."""

    server_id: str
    outcome: str
    after: Annotated[int, "milliseconds from the request's arrival"]
    duration: MS
    ttft: Annotated[int | None, "milliseconds from its start to the first byte; null if none came"]


class PastRequestJson(JsonObject, kw_only=True):
    """A finished request. Tokens and times are null where nobody knows them."""

    id: str
    timestamp: Annotated[EPOCH_MS, "when it arrived"]
    server_id: Annotated[str, "that answered it, or was the last to fail; empty if none was tried"]
    model: str
    endpoint: str
    client: Annotated[str, "key:NAME, or address: and a keyed hash"]
    streaming: bool
    duration: Annotated[int, "milliseconds from arrival to end"]
    success: bool
    outcome: str
    outcome_class: Annotated[str, OneOf(OUTCOME_CLASSES)]
    status: Annotated[int, "of HTTP; 499 if the client left"]
    tokens_generated: int | None
    tokens_prompt: int | None
    queue_time: MS
    load_time: Annotated[int | None, "milliseconds"]
    ttft: Annotated[int | None, "milliseconds from arrival to the first byte"]
    slot_time: Annotated[int, "milliseconds for which its attempts held slots"]
    wasted_time: Annotated[int, "milliseconds of those that gave nobody an answer"]
    cold: Annotated[bool, "whether it waited for the model to be loaded"]
    attempts: int
    tries: Annotated[list[AttemptJson], "if there were several"]
    trace_id: str | None
    options: Annotated[str | None, "equal for equal runner options"]
    error_type: str | UnsetType = UNSET
    error_message: str | UnsetType = UNSET


class RetentionJson(JsonObject, kw_only=True):
    """How long single requests are kept: until the one or the other is reached."""

    days: int
    bytes: BYTES


def retention(system: System) -> RetentionJson:
    """As it is configured."""
    section = system.config.history
    return RetentionJson(days=section.keep_days, bytes=section.keep_bytes)


def shown(row: RequestRow) -> PastRequestJson:
    """One request."""
    answered = row.outcome_class == "answered"
    return PastRequestJson(
        id=row.request,
        timestamp=milliseconds(row.began),
        server_id=row.server,
        model=row.model,
        endpoint=row.endpoint,
        client=row.client,
        streaming=row.stream,
        duration=milliseconds(row.total),
        success=answered,
        outcome=row.outcome,
        outcome_class=row.outcome_class,
        status=row.status,
        tokens_generated=row.output_tokens,
        tokens_prompt=row.prompt_tokens,
        queue_time=milliseconds(row.queue),
        load_time=milliseconds(row.load),
        ttft=milliseconds(row.first_byte),
        slot_time=milliseconds(row.slot),
        wasted_time=milliseconds(row.wasted),
        cold=row.cold,
        attempts=row.tries,
        tries=[_attempt(row, at) for at in range(len(row.attempts))],
        trace_id=row.trace,
        options=row.options,
        error_type=UNSET if answered else row.outcome,
        error_message=UNSET if answered else message(row),
    )


def message(row: RequestRow) -> str:
    """What went wrong, in words: those of the server are not kept."""
    return f"{row.outcome.replace('_', ' ')} (status {row.status})"


def _attempt(row: RequestRow, at: int) -> AttemptJson:
    attempt = row.attempts[at]
    return AttemptJson(
        server_id=attempt.server,
        outcome=attempt.outcome,
        after=milliseconds(attempt.after),
        duration=milliseconds(attempt.seconds),
        ttft=milliseconds(attempt.first_byte),
    )
