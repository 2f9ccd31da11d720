"""What a fleet remembers of its requests, to the very last."""

from __future__ import annotations

from collections.abc import Sequence

from actors.state.messages import RequestRecord
from actors.state.request_log import RequestLog


def recent(log: RequestLog) -> Sequence[RequestRecord]:
    """The last requests of clients, oldest first: what waits to be digested is digested first."""
    log.flush()
    return log.remembered
