"""Alerts: those that fire, those that did; acknowledging and silencing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from fleet.common.errors import BadRequest, Conflict, NotFound
from fleet.common.times import iso, milliseconds
from fleet.config.schema.types import Section, Whole
from fleet.observability.alerting.alert import Alert
from fleet.observability.alerting.rules import BY_NAME, IN_APP, RULES, SEVERITIES, Rule
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, SECONDS, Each, Maybe, OneOf, Said
from web.http.units import take_turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fleet.observability.alerting.alert_manager import Alerts
    from fleet.observability.alerting.silences import Silence

topic = RouteGroup("alerts", "What the fleet complains about.")

EPOCH: Final = Said(float, "seconds since 1970")
SEVERITY: Final = OneOf(SEVERITIES)
STATE: Final = OneOf(("firing", "resolved"))
ALERT: Final = {
    "id": str,
    "seq": Said(int, "the number of its last change"),
    "rule": str,
    "severity": SEVERITY,
    "state": STATE,
    "since": Said(float, "seconds since 1970: when the condition began, not when the rule fired"),
    "resolved": Maybe(EPOCH),
    "subject": Said(Each(str), "server, model or gpu; empty: the fleet"),
    "title": str,
    "detail": str,
    "value": Maybe(float),
    "threshold": Maybe(float),
    "ack": Maybe({"by": str, "at": EPOCH}),
    "silenced_until": Maybe(EPOCH),
    "actions": [str],
    "href": str,
}
SILENCE: Final = {
    "id": str,
    "rule": str,
    "subject": Said(Each(str), "empty: all subjects of the rule"),
    "until": EPOCH_MS,
    "by": str,
    "at": EPOCH_MS,
    "reason": str,
    "next": str,
}
RULE: Final = {
    "name": str,
    "severity": SEVERITY,
    "summary": str,
    "meaning": str,
    "remedy": str,
    "inApp": Said(bool, "false: only Prometheus can tell"),
    "labels": Said([str], "what its subject consists of"),
    "hold": SECONDS,
    "keepFiring": SECONDS,
    "setting": Maybe(Said(str, "the configuration key that is its threshold")),
    "threshold": Maybe(float),
    "promql": str,
    "firing": int,
    "pending": int,
}
ONE: Final = {"success": bool, "alert": ALERT}
_YEAR_MINUTES: Final = 366 * 24 * 60
_STATES: Final = ("firing", "resolved", "all")
Word = Annotated[str, Field(min_length=1, max_length=1024)]


class NewSilence(Section):
    """What nobody shall be called for, and until when: a silence has an end."""

    rule: Annotated[str, Field(min_length=1, max_length=64, description="Name of the rule.")]
    subject: Annotated[dict[Word, Word], Field(max_length=4)] = Field(
        {}, description="The one server, model or GPU it is about; absent: all of the rule."
    )
    until: Annotated[Whole, Field(ge=0, le=10**14)] | None = Field(
        None, description="When it ends, in milliseconds since 1970."
    )
    minutes: Annotated[Whole, Field(ge=1, le=_YEAR_MINUTES)] | None = Field(
        None, description="How long it lasts, in minutes; instead of `until`."
    )
    reason: Annotated[str, Field(max_length=256, description="Shown beside it.")] = ""


@topic.get(
    "/alerts",
    "Those that fire, the worst first, then those that are over, the latest first.",
    query=(
        Param("state", str, "all", "which of them", words=_STATES),
        Param("after", int, 0, "only what has changed after this number, in order of change", least=0, most=2**53),
        Param("limit", int, 100, "how many at most", least=1, most=10_000),
    ),
    returns={
        "success": bool,
        "enabled": bool,
        "seq": Said(int, "the number of the last change; they begin anew with the process"),
        "firing": Said(int, "how many there are"),
        "pending": Said(int, "conditions that do not hold for long enough yet"),
        "alerts": [ALERT],
    },
)
async def alerts(asked: AdminRequest) -> dict[str, Any]:
    held, query = asked.system.monitor.alerts, asked.query
    firing = held.firing
    found = _chosen(firing, held, query["state"])
    if query["after"]:
        found = sorted((alert for alert in found if alert.seq > query["after"]), key=lambda alert: alert.seq)
    shown = []
    for number, alert in enumerate(found[: query["limit"]]):
        shown.append(alert.payload())
        await take_turns(number)
    return {
        "success": True,
        "enabled": asked.system.config.alerts.enabled,
        "seq": held.seq,
        "firing": len(firing),
        "pending": len(held.pending),
        "alerts": shown,
    }


@topic.get("/alerts/rules", "All rules, with the thresholds in effect.", returns={"success": bool, "rules": [RULE]})
async def rules(asked: AdminRequest) -> dict[str, Any]:
    return {"success": True, "rules": [_rule(asked, rule) for rule in RULES]}


@topic.post(
    "/alerts/<alert>/ack", "Say that somebody looks after it.", action="acknowledge alert", returns=ONE, fails=(404,)
)
async def ack(asked: AdminRequest, alert: str) -> dict[str, Any]:
    asked.note.about(alert=alert)
    return _one(asked.system.monitor.ack(alert, asked.by.name), alert)


@topic.delete("/alerts/<alert>/ack", "Take that back.", action="withdraw acknowledgement", returns=ONE, fails=(404,))
async def unack(asked: AdminRequest, alert: str) -> dict[str, Any]:
    asked.note.about(alert=alert)
    return _one(asked.system.monitor.alerts.unack(alert), alert)


@topic.get(
    "/alerts/silences",
    "All that hold, those that end first before others.",
    returns={"success": bool, "silences": [SILENCE]},
)
async def silences(asked: AdminRequest) -> dict[str, Any]:
    held = sorted(asked.system.monitor.alerts.silences, key=lambda silence: silence.until)
    return {"success": True, "silences": [_silence(each) for each in held]}


@topic.post(
    "/alerts/silences",
    "Call nobody for a rule, or for one subject of it, until a given time. It survives a restart.",
    action="silence alerts",
    body=NewSilence,
    returns={"success": bool, "silence": SILENCE},
    fails=(409,),
)
async def silence(asked: AdminRequest) -> dict[str, Any]:
    given: NewSilence = asked.body
    asked.note.about(rule=given.rule)
    rule, until = _known(given), _until(asked, given)
    asked.note.about(**given.subject)  # by now its names are those of the rule's labels
    made = asked.system.monitor.silence(rule.name, given.subject, until, asked.by.name, given.reason)
    if made is None:
        raise Conflict("there are too many silences", details="DELETE /alerts/silences/:id ends one")
    asked.note.change(after={"until": iso(made.until)})
    return {"success": True, "silence": _silence(made)}


@topic.get("/alerts/silences/<silence>", "One of them.", returns={"success": bool, "silence": SILENCE}, fails=(404,))
async def one_silence(asked: AdminRequest, silence: str) -> dict[str, Any]:
    return _found(asked.system.monitor.alerts.silences.get(silence), silence)


@topic.delete(
    "/alerts/silences/<silence>",
    "End one of them; what fires is told again.",
    action="end silence",
    returns={"success": bool, "silence": SILENCE},
    fails=(404,),
)
async def unsilence(asked: AdminRequest, silence: str) -> dict[str, Any]:
    asked.note.about(silence=silence)
    return _found(asked.system.monitor.unsilence(silence), silence)


@topic.post(
    "/alerts/test",
    "Raise an alert that ends at once: to the live feed, and to the webhook whatever its severity.",
    action="test alerts",
    returns={**ONE, "webhook": Said(bool, "whether one is configured")},
)
async def test(asked: AdminRequest) -> dict[str, Any]:
    fired = asked.system.monitor.test(asked.by.name)
    return {**_one(fired, fired.id), "webhook": bool(asked.system.config.alerts.webhook.url.get_secret_value())}


def _chosen(firing: list[Alert], held: Alerts, state: str) -> list[Alert]:
    over: Iterable[Alert] = () if state == "firing" else reversed(held.history)
    return [*(() if state == "resolved" else firing), *over]


def _one(alert: Alert | None, key: str) -> dict[str, Any]:
    if alert is None:
        raise NotFound(f"no alert '{key}' fires")
    return {"success": True, "alert": alert.payload()}


def _found(silence: Silence | None, key: str) -> dict[str, Any]:
    if silence is None:
        raise NotFound(f"no silence '{key}' holds")
    return {"success": True, "silence": _silence(silence)}


def _known(given: NewSilence) -> Rule:
    """The rule. Raises BadRequest for one that the app does not evaluate, and for a subject that it does not have."""
    rule = BY_NAME.get(given.rule)
    if rule is None or not rule.in_app:
        known = ", ".join(rule.name for rule in IN_APP)
        raise BadRequest(f"rule: no such rule here: {given.rule}", details=f"known are: {known}")
    strange = given.subject.keys() - set(rule.labels)
    if strange:
        has = " and ".join(rule.labels) or "none"
        raise BadRequest(f"subject: {rule.name} knows nothing of {', '.join(sorted(strange))}; it has {has}")
    return rule


def _until(asked: AdminRequest, given: NewSilence) -> float:
    """Epoch seconds. Raises BadRequest without an end, with two, and for one that has passed."""
    at = asked.system.clock.wall()
    if (given.until is None) == (given.minutes is None):
        raise BadRequest("give either until or minutes", details="a silence needs an end")
    until = at + 60 * given.minutes if given.minutes is not None else (given.until or 0) / 1000
    if until <= at:
        raise BadRequest("until: has passed already", details="give milliseconds since 1970, in the future")
    if until > at + 60 * _YEAR_MINUTES:
        raise BadRequest("until: is more than a year away")
    return until


def _silence(silence: Silence) -> dict[str, Any]:
    """In `SILENCE`'s shape."""
    return {
        "id": silence.id,
        "rule": silence.rule,
        "subject": dict(silence.subject),
        "until": milliseconds(silence.until),
        "by": silence.by,
        "at": milliseconds(silence.at),
        "reason": silence.why,
        "next": f"ends by itself at {iso(silence.until)}",
    }


def _rule(asked: AdminRequest, rule: Rule) -> dict[str, Any]:
    """In `RULE`'s shape."""
    settings, held = asked.system.config.alerts, asked.system.monitor.alerts
    limit = rule.threshold(settings)
    return {
        "name": rule.name,
        "severity": rule.severity,
        "summary": rule.summary,
        "meaning": rule.meaning,
        "remedy": rule.remedy,
        "inApp": rule.in_app,
        "labels": list(rule.labels),
        "hold": rule.hold,
        "keepFiring": rule.keep_firing,
        "setting": f"alerts.{rule.setting}" if rule.setting else None,
        "threshold": limit if rule.setting or rule.fixed else None,
        "promql": rule.promql(settings),
        "firing": sum(alert.rule == rule.name for alert in held.firing),
        "pending": sum(name == rule.name for name, _ in held.pending),
    }
