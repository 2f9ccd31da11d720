"""What the webhook sends, to whom it proves that, how often it tries: everything but the sending."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final, Literal

from fleet.common.lru_table import LruTable
from fleet.observability.alerting.alert import Alert
from fleet.observability.alerting.alert_manager import TEST
from fleet.observability.alerting.rules import SEVERITIES, Severity

Event = Literal["alert.firing", "alert.resolved", "alert.test"]
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
_TRY_AGAIN: Final = frozenset((408, 425, 429))
_MOST_TOLD: Final = 5_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing to send. `id` is the same in every attempt, so that receivers can tell what they had before."""

    id: str
    event: Event
    payload: dict[str, Any]


class Told:
    """Which alerts the receiver knows of: an end is sent to whom the beginning was sent, once each."""

    def __init__(self) -> None:
        self._ids: LruTable[str, None] = LruTable(_MOST_TOLD)

    def event(self, alert: Alert, least: Severity) -> Event | None:
        """What to send about a change; None: nothing. Silenced alerts are sent when their silence ends, if ever."""
        if alert.rule == TEST:
            return "alert.test" if alert.firing else None
        if not alert.firing:
            return "alert.resolved" if self._ids.pop(alert.id, self) is None else None
        serious = SEVERITIES.index(alert.severity) <= SEVERITIES.index(least)
        if not serious or alert.silenced_until is not None or alert.id in self._ids:
            return None
        self._ids.put(alert.id, None)
        return "alert.firing"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Hex HMAC-SHA256 over the timestamp, a dot and the body."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def headers(delivery: Delivery, timestamp: str, body: bytes, secret: str | None) -> dict[str, str]:
    """What is sent before the body; a signature only with a secret."""
    said = {
        "Content-Type": "application/json",
        "User-Agent": "fleet-webhook",
        "X-Fleet-Event": delivery.event,
        "X-Fleet-Delivery": delivery.id,
        "X-Fleet-Timestamp": timestamp,
    }
    return said if secret is None else {**said, "X-Fleet-Signature": signature(secret, timestamp, body)}


def pause(attempt: int, chance: float) -> float:
    """Seconds before the next attempt after the `attempt`-th (from 1); `chance` (0 to 1) spreads them by a quarter."""
    whole = min(FIRST_PAUSE * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE)
    return whole * (0.75 + 0.5 * chance)


def hopeless(status: int) -> bool:
    """Whether this answer would be the same the next time."""
    return 300 <= status < 500 and status not in _TRY_AGAIN
