"""How the record of a finished request becomes a row of the history."""

from __future__ import annotations

import math
from typing import Final

from actors.state.messages import RequestRecord, Try
from fleet.history.request_row import AttemptRow, RequestRow, client_name, fingerprint, outcome_class

_MOST_TOKENS: Final = 2**40
"""More is nonsense of a server's, and sums of it would not fit into a column."""
_MOST_LOAD: Final = 30 * 86_400.0


def row_of(record: RequestRecord, epoch: float, secret: bytes) -> tuple[float, RequestRow]:
    """When it ended, in seconds since 1970, and its row. `epoch`: when Trio's clock began; `secret`: of the history.

    What its attempts held slots for is wasted, but for the last one's part if the client got its answer.
    """
    tries = record.tries
    slot = sum([each.ended - each.started for each in tries])
    wasted = slot
    if tries and outcome_class(record.outcome) == "answered":
        wasted -= tries[-1].ended - tries[-1].started
    row = RequestRow(
        request=record.request_id,
        trace=None if record.trace is None else record.trace.name,
        began=epoch + record.began,
        queue=record.queue_seconds,
        load=_load(record.load_seconds),
        first_byte=record.first_byte_seconds,
        total=record.total_seconds,
        slot=slot,
        wasted=max(0.0, wasted),
        endpoint=record.endpoint,
        model=record.model,
        server=record.server,
        client=client_name(record.by, record.client, secret),
        outcome=record.outcome,
        status=record.status,
        prompt_tokens=_tokens(record.prompt_tokens),
        output_tokens=_tokens(record.output_tokens),
        stream=record.stream,
        tries=record.attempts,
        options=fingerprint(record.runner),
        attempts=[_attempt(each, record.began) for each in tries] if len(tries) > 1 else (),
    )
    return epoch + record.began + record.total_seconds, row


def _attempt(tried: Try, began: float) -> AttemptRow:
    first = None if tried.first_byte is None else tried.first_byte - tried.started
    return AttemptRow(tried.server, tried.outcome, tried.started - began, tried.ended - tried.started, first)


def _tokens(told: int | None) -> int | None:
    return None if told is None else min(max(told, 0), _MOST_TOKENS)


def _load(told: float | None) -> float | None:
    return None if told is None or not math.isfinite(told) else min(max(told, 0.0), _MOST_LOAD)
