"""Alerts: those that fire, those that did; acknowledging and silencing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Struct
from pydantic import Field

from fleet.common.errors import BadRequest, Conflict, NotFound
from fleet.common.times import iso, milliseconds
from fleet.config.schema.types import Section, Whole
from fleet.observability.alerting.alert import Alert, AlertState
from fleet.observability.alerting.rules import BY_NAME, IN_APP, RULES, Rule, Severity
from web.admin.kit.answers import EPOCH_MS, SECONDS, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http.units import take_turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fleet.observability.alerting.alert_manager import Alerts
    from fleet.observability.alerting.silences import Silence

topic = RouteGroup("alerts", "What the fleet complains about.")

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


EPOCH = Annotated[float, "seconds since 1970"]


class AckJson(Struct, kw_only=True, gc=False):
    """Who looks after an alert."""

    by: str
    at: EPOCH


class AlertJson(Struct, kw_only=True, gc=False):
    """One alert, with the keys of `system_alert`, which the feed and the webhook send too."""

    id: str
    seq: Annotated[int, "the number of its last change"]
    rule: str
    severity: Severity
    state: AlertState
    since: Annotated[float, "seconds since 1970: when the condition began, not when the rule fired"]
    resolved: EPOCH | None
    subject: Annotated[dict[str, str], "server, model or gpu; empty: the fleet"]
    title: str
    detail: str
    value: float | None
    threshold: float | None
    ack: AckJson | None
    silenced_until: EPOCH | None
    actions: list[str]
    href: str


class SilenceJson(JsonObject, kw_only=True):
    """What nobody is called for."""

    id: str
    rule: str
    subject: Annotated[dict[str, str], "empty: all subjects of the rule"]
    until: EPOCH_MS
    by: str
    at: EPOCH_MS
    reason: str
    next: str


class RuleJson(JsonObject, kw_only=True):
    """One rule, with the threshold in effect."""

    name: str
    severity: Severity
    summary: str
    meaning: str
    remedy: str
    in_app: Annotated[bool, "false: only Prometheus can tell"]
    labels: Annotated[list[str], "what its subject consists of"]
    hold: SECONDS
    keep_firing: SECONDS
    setting: Annotated[str, "the configuration key that is its threshold"] | None
    threshold: float | None
    promql: str
    firing: int
    pending: int


class AlertsAnswer(Answer, kw_only=True):
    """Some alerts, and how many there are."""

    enabled: bool
    seq: Annotated[int, "the number of the last change; they begin anew with the process"]
    firing: Annotated[int, "how many there are"]
    pending: Annotated[int, "conditions that do not hold for long enough yet"]
    alerts: list[AlertJson]


class RulesAnswer(Answer, kw_only=True):
    """All rules."""

    rules: list[RuleJson]


class AlertAnswer(Answer, kw_only=True):
    """One alert."""

    alert: AlertJson


class TestAlertAnswer(AlertAnswer, kw_only=True):
    """The alert of a test."""

    webhook: Annotated[bool, "whether one is configured"]


class SilencesAnswer(Answer, kw_only=True):
    """All that hold."""

    silences: list[SilenceJson]


class SilenceAnswer(Answer, kw_only=True):
    """One silence."""

    silence: SilenceJson


@topic.get(
    "/alerts",
    "Those that fire, the worst first, then those that are over, the latest first.",
    query=(
        Param("state", str, "all", "which of them", words=_STATES),
        Param("after", int, 0, "only what has changed after this number, in order of change", least=0, most=2**53),
        Param("limit", int, 100, "how many at most", least=1, most=10_000),
    ),
)
async def alerts(asked: AdminRequest) -> AlertsAnswer:
    held, query = asked.system.monitor.alerts, asked.query
    firing = held.firing
    found = _chosen(firing, held, query["state"])
    if query["after"]:
        found = sorted((alert for alert in found if alert.seq > query["after"]), key=lambda alert: alert.seq)
    shown = []
    for number, alert in enumerate(found[: query["limit"]]):
        shown.append(_alert(alert))
        await take_turns(number)
    return AlertsAnswer(
        enabled=asked.system.config.alerts.enabled,
        seq=held.seq,
        firing=len(firing),
        pending=len(held.pending),
        alerts=shown,
    )


@topic.get("/alerts/rules", "All rules, with the thresholds in effect.")
async def rules(asked: AdminRequest) -> RulesAnswer:
    return RulesAnswer(rules=[_rule(asked, rule) for rule in RULES])


@topic.post("/alerts/<alert>/ack", "Say that somebody looks after it.", action="acknowledge alert", fails=(404,))
async def ack(asked: AdminRequest, alert: str) -> AlertAnswer:
    asked.note.about(alert=alert)
    return _one(asked.system.monitor.ack(alert, asked.by.name), alert)


@topic.delete("/alerts/<alert>/ack", "Take that back.", action="withdraw acknowledgement", fails=(404,))
async def unack(asked: AdminRequest, alert: str) -> AlertAnswer:
    asked.note.about(alert=alert)
    return _one(asked.system.monitor.alerts.unack(alert), alert)


@topic.get(
    "/alerts/silences",
    "All that hold, those that end first before others.",
)
async def silences(asked: AdminRequest) -> SilencesAnswer:
    held = sorted(asked.system.monitor.alerts.silences, key=lambda silence: silence.until)
    return SilencesAnswer(silences=[_silence(each) for each in held])


@topic.post(
    "/alerts/silences",
    "Call nobody for a rule, or for one subject of it, until a given time. It survives a restart.",
    action="silence alerts",
    body=NewSilence,
    fails=(409,),
)
async def silence(asked: AdminRequest) -> SilenceAnswer:
    given: NewSilence = asked.body
    asked.note.about(rule=given.rule)
    rule, until = _known(given), _until(asked, given)
    asked.note.about(**given.subject)  # by now its names are those of the rule's labels
    made = asked.system.monitor.silence(rule.name, given.subject, until, asked.by.name, given.reason)
    if made is None:
        raise Conflict("there are too many silences", details="DELETE /alerts/silences/:id ends one")
    asked.note.change(after={"until": iso(made.until)})
    return SilenceAnswer(silence=_silence(made))


@topic.get("/alerts/silences/<silence>", "One of them.", fails=(404,))
async def one_silence(asked: AdminRequest, silence: str) -> SilenceAnswer:
    return _found(asked.system.monitor.alerts.silences.get(silence), silence)


@topic.delete(
    "/alerts/silences/<silence>",
    "End one of them; what fires is told again.",
    action="end silence",
    fails=(404,),
)
async def unsilence(asked: AdminRequest, silence: str) -> SilenceAnswer:
    asked.note.about(silence=silence)
    return _found(asked.system.monitor.unsilence(silence), silence)


@topic.post(
    "/alerts/test",
    "Raise an alert that ends at once: to the live feed, and to the webhook whatever its severity.",
    action="test alerts",
)
async def test(asked: AdminRequest) -> TestAlertAnswer:
    fired = asked.system.monitor.test(asked.by.name)
    webhook = bool(asked.system.config.alerts.webhook.url.get_secret_value())
    return TestAlertAnswer(alert=_alert(fired), webhook=webhook)


def _chosen(firing: list[Alert], held: Alerts, state: str) -> list[Alert]:
    over: Iterable[Alert] = () if state == "firing" else reversed(held.history)
    return [*(() if state == "resolved" else firing), *over]


def _alert(alert: Alert) -> AlertJson:
    return AlertJson(**alert.payload())


def _one(alert: Alert | None, key: str) -> AlertAnswer:
    if alert is None:
        raise NotFound(f"no alert '{key}' fires")
    return AlertAnswer(alert=_alert(alert))


def _found(silence: Silence | None, key: str) -> SilenceAnswer:
    if silence is None:
        raise NotFound(f"no silence '{key}' holds")
    return SilenceAnswer(silence=_silence(silence))


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


def _silence(silence: Silence) -> SilenceJson:
    return SilenceJson(
        id=silence.id,
        rule=silence.rule,
        subject=dict(silence.subject),
        until=milliseconds(silence.until),
        by=silence.by,
        at=milliseconds(silence.at),
        reason=silence.why,
        next=f"ends by itself at {iso(silence.until)}",
    )


def _rule(asked: AdminRequest, rule: Rule) -> RuleJson:
    settings, held = asked.system.config.alerts, asked.system.monitor.alerts
    limit = rule.threshold(settings)
    return RuleJson(
        name=rule.name,
        severity=rule.severity,
        summary=rule.summary,
        meaning=rule.meaning,
        remedy=rule.remedy,
        in_app=rule.in_app,
        labels=list(rule.labels),
        hold=rule.hold,
        keep_firing=rule.keep_firing,
        setting=f"alerts.{rule.setting}" if rule.setting else None,
        threshold=limit if rule.setting or rule.fixed else None,
        promql=rule.promql(settings),
        firing=sum(alert.rule == rule.name for alert in held.firing),
        pending=sum(name == rule.name for name, _ in held.pending),
    )
