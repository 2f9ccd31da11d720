"""What tests of the rate limits share: a clock that stands still until told, and what an answer says of a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from actors.kit import clock
from fleet.security.rate_limit import SECOND

EPOCH = 1_700_000_000
CHAT: dict[str, Any] = {"model": "llama3:8b", "messages": [{"role": "user", "content": "Hi"}], "stream": False}


def limits(proxy: int = 2, metrics: int = 2, **security: Any) -> dict[str, Any]:
    """The sections of a configuration with these limits."""
    limiting = {"enabled": True, "requests_per_minute": metrics}
    return {"monitoring": {"rate_limit_per_minute": proxy}, "security": {"rate_limiting": limiting, **security}}


class Clock:
    """Begins at `EPOCH`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0
        patch.setattr(clock.Clock, "nanoseconds", lambda _: (self.now, EPOCH * SECOND + self.now))

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


class Told(NamedTuple):
    """Limit, remaining, and seconds from `EPOCH` until the reset."""

    limit: int
    remaining: int
    reset: int


def told(headers: Mapping[str, str]) -> Told | None:
    """What an answer says of its client's budget; None if it is silent."""
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    if not any(name in headers for name in names):
        return None
    limit, remaining, reset = (int(headers[name]) for name in names)
    return Told(limit, remaining, reset - EPOCH)
