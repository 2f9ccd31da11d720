"""One alert, as it is shown and sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

from fleet.observability.alerting.rules import Severity

AlertState = Literal["firing", "resolved"]
TEXT: Final = 300
"""Characters of a detail."""
_DIGITS: Final = 3
_QUEUE: Final = "FleetQueue"


@dataclass(frozen=True, slots=True)
class Ack:
    """Somebody knows. Epoch seconds."""

    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule whose condition holds (or held) for a subject. Replaced when it changes, never written.

    Epoch seconds: `since` is when the condition began, `fired` when the alert did, `resolved` when the condition ended.
    `seq` is the number of the alert's last change; `subject` is empty when it is about the fleet.
    """

    id: str
    seq: int
    rule: str
    severity: Severity
    state: AlertState
    since: float
    fired: float
    title: str
    detail: str = ""
    subject: Mapping[str, str] = field(default_factory=dict)
    value: float | None = None
    threshold: float | None = None
    resolved: float | None = None
    ack: Ack | None = None
    silenced_until: float | None = None
    actions: tuple[str, ...] = ()

    @property
    def firing(self) -> bool:
        """Whether it is not over."""
        return self.state == "firing"

    @property
    def href(self) -> str:
        """The page of the dashboard that is about it."""
        server, model = self.subject.get("server"), self.subject.get("model")
        if server and model:
            return f"#/breakers/{_part(server)}/{_part(model)}"
        if server or model:
            return f"#/servers/{_part(server)}" if server else f"#/models/{_part(model or '')}"
        return "#/queue" if self.rule.startswith(_QUEUE) else "#/alerts"

    def payload(self) -> dict[str, Any]:
        """As it is sent: the keys of `system_alert`."""
        return {
            "id": self.id,
            "seq": self.seq,
            "rule": self.rule,
            "severity": self.severity,
            "state": self.state,
            "since": _moment(self.since),
            "resolved": _moment(self.resolved),
            "subject": dict(self.subject),
            "title": self.title,
            "detail": self.detail,
            "value": _figure(self.value),
            "threshold": _figure(self.threshold),
            "ack": None if self.ack is None else {"by": self.ack.by, "at": _moment(self.ack.at)},
            "silenced_until": _moment(self.silenced_until),
            "actions": list(self.actions),
            "href": self.href,
        }


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, _DIGITS)


def _figure(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _part(name: str) -> str:
    return quote(name, safe=":")
