"""Servers, pairs and errors of the tests of recoveries."""

from __future__ import annotations

from fleet.breakers.recovery_log import Source
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId

S1, S2 = ServerId("s1"), ServerId("s2:11434")
A = Pair(S1, ModelName("hf.co/bartowski/llama-3:q4"))
PROBE, TEST, TRIAL = Source.HEALTH_CHECK, Source.RECOVERY_TEST, Source.TRIAL
CLOSED, OPEN, HALF = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


TYPES = [
    ("connect_timeout", "timeout"),
    ("first_byte_timeout", "timeout"),
    ("idle_timeout", "timeout"),
    ("connection_refused", "connection_refused"),
    ("backend_unreachable", "network_error"),
    ("backend_broke", "network_error"),
    ("bad_answer", "server_error"),
    ("refused_500", "server_error"),
    ("refused_503", "server_error"),
    ("refused_429", "rate_limited"),
    ("stream_error", "server_error"),
    ("refused_404", "unknown"),
    ("", "unknown"),
    ("connection refused", "unknown"),  # English is not read
]
