"""Which ends of a request are a failure of the fleet: what alerts and the verdict call an error.

Statistics count every request that was not answered (`aggregates.HARMLESS`). To wake somebody up for it, it must be
nobody's own doing: a client that asks for a model that does not exist, or an operator who cancels, breaks nothing.
"""

from __future__ import annotations

from typing import Final

from fleet.observability.statistics.aggregates import HARMLESS

OWN_DOING: Final = frozenset(
    (
        "invalid_request",
        "unauthorized",
        "forbidden",
        "model_not_found",
        "server_not_found",
        "request_body_timeout",
        "body_too_large",
        "rate_limited",
        "request_cancelled",
        "queue_cancelled",
        "shutting_down",
    )
)
"""Outcomes that were refused with good reason, or that somebody wanted."""
REJECTED: Final = frozenset(("queue_full", "queue_timeout"))
"""Outcomes of requests that the queue had no room or no time for."""
STALLED: Final = "idle_timeout"
"""The outcome of a stream that fell silent."""
_BUSY: Final = "refused_429"
_REFUSED: Final = "refused_4"


def failed(outcome: str) -> bool:
    """Whether a request that ended so was failed by the fleet or its servers."""
    if outcome in HARMLESS or outcome in OWN_DOING:
        return False
    return outcome == _BUSY or not outcome.startswith(_REFUSED)


HARMLESS_PATTERN: Final = "|".join((*sorted(HARMLESS | OWN_DOING), "refused_4([013-9].|2[0-8]|xx)"))
"""The outcomes that are no failures, as an (anchored) regular expression for Prometheus."""
