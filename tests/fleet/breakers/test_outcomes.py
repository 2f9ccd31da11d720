"""Who is to blame, and may another server be tried: by type, phase and status."""

from __future__ import annotations

import pytest

from fleet.breakers.failure_classes import classify
from fleet.breakers.outcomes import (
    ClientLeft,
    Completed,
    End,
    Failed,
    Incomplete,
    Refused,
    Revoked,
    Signal,
    StreamError,
    kind,
    retryable_elsewhere,
)
from fleet.common.errors import BackendBroke, BackendUnreachable, ConnectTimeout, IdleTimeout, Phase, RequestCancelled

RUNNING = "an error was encountered while running the model"
CRASH = "model runner has unexpectedly stopped, this may be due to resource limitations"

TABLE: list[tuple[End, Signal, bool, str]] = [
    (Completed(200), Signal.SUCCESS, False, "completed"),
    (Incomplete(200), Signal.NEUTRAL, False, "incomplete"),
    (Incomplete(200, early=True), Signal.SOFT_FAILURE, False, "incomplete"),
    (ClientLeft(), Signal.NEUTRAL, False, "client_left"),
    (ClientLeft(stalled=True), Signal.NEUTRAL, False, "client_stalled"),
    (Revoked("drain timeout"), Signal.NEUTRAL, True, "revoked"),
    (Revoked("cancelled", RequestCancelled("x")), Signal.NEUTRAL, False, "request_cancelled"),
    (Failed(BackendUnreachable("x", Phase.CONNECT)), Signal.FAILURE, True, "backend_unreachable"),
    (Failed(ConnectTimeout("x", Phase.CONNECT)), Signal.FAILURE, True, "connect_timeout"),
    (Failed(BackendBroke("x", Phase.BODY)), Signal.FAILURE, True, "backend_broke"),
    (Failed(IdleTimeout("x", Phase.BODY)), Signal.FAILURE, True, "idle_timeout"),
    (StreamError(f"{RUNNING}: unexpected EOF"), Signal.FAILURE, False, "stream_error"),
    (StreamError("pull model manifest: file does not exist"), Signal.NEUTRAL, False, "stream_error"),
    (Refused(400, "model is required"), Signal.NEUTRAL, False, "refused_400"),
    (Refused(404, "model 'm' not found", missing=True), Signal.NEUTRAL, True, "refused_404"),
    (Refused(404), Signal.NEUTRAL, False, "refused_404"),
    (Refused(408), Signal.NEUTRAL, True, "refused_408"),
    (Refused(413), Signal.NEUTRAL, True, "refused_413"),
    (Refused(429), Signal.NEUTRAL, True, "refused_429"),
    (Refused(499, "request canceled"), Signal.NEUTRAL, False, "refused_499"),
    (Refused(500, CRASH), Signal.FAILURE, True, "refused_500"),
    (Refused(500, 'option "num_ctx" must be of type integer'), Signal.NEUTRAL, False, "refused_500"),
    (Refused(500, 'invalid format: "out of memory"; expected "json"'), Signal.NEUTRAL, False, "refused_500"),
    (Refused(500, "template: :1: llama runner process"), Signal.NEUTRAL, False, "refused_500"),
    (Refused(502), Signal.FAILURE, True, "refused_502"),
    (Refused(503, "server busy"), Signal.FAILURE, True, "refused_503"),
    (Refused(504), Signal.FAILURE, True, "refused_504"),
]  # fmt: skip


@pytest.mark.parametrize(("end", "signal", "elsewhere", "word"), TABLE, ids=lambda value: str(value)[:40])
def test_every_end_has_its_signal_its_retry_and_its_word(end: End, signal: Signal, elsewhere: bool, word: str) -> None:
    assert classify(end) is signal
    assert retryable_elsewhere(end) is elsewhere
    assert kind(end) == word
