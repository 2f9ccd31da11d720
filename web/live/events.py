"""What a live client may ask for, whatever its transport: one small table of events."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from actors.observability.dashboard.feed import Subscriber

TOPICS: Final = ("metrics_update", "ai_status_update", "system_alert", "job_update")
"""What everybody gets. Nothing else can be subscribed to."""
LEAST_HZ: Final = 0.1
MOST_HZ: Final = 2.0

Answer = dict[str, object]


def answered(viewer: Subscriber, name: str, values: Sequence[Any]) -> Answer | None:
    """Do what an event asks for; what to answer if it wants an answer. None: there is no such event."""
    do = _EVENTS.get(name)
    return None if do is None else do(viewer, values[0] if values else None)


def _request_update(viewer: Subscriber, _value: Any) -> Answer:
    viewer.request_update()
    return {"ok": True}


def _set_rate(viewer: Subscriber, value: Any) -> Answer:
    hz = value.get("hz") if isinstance(value, dict) else value
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not math.isfinite(hz):
        return {"ok": False, "error": "hz must be a number of updates per second"}
    hz = min(max(float(hz), LEAST_HZ), MOST_HZ)
    viewer.set_rate(hz)
    return {"ok": True, "hz": hz}


def _subscribe(_viewer: Subscriber, value: Any) -> Answer:
    wanted = value.get("topics") if isinstance(value, dict) else value
    asked = wanted if isinstance(wanted, list) else [wanted]
    return {"ok": True, "topics": [topic for topic in TOPICS if topic in asked]}


_EVENTS: Final[Mapping[str, Callable[[Subscriber, Any], Answer]]] = MappingProxyType(
    {"request_update": _request_update, "set_rate": _set_rate, "subscribe": _subscribe}
)
