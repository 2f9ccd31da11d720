"""The rules as a page: what each means, what to do, where its threshold is. Generated, so that it cannot drift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fleet.common import wording as say
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.rules import AVAILABILITY, FLOW, ITSELF, MACHINE, QUALITY, Rule

_CHAPTERS: Final = (
    ("Can requests be served?", AVAILABILITY),
    ("How well?", QUALITY),
    ("Queue, breakers, models", FLOW),
    ("The fleet's machine", MACHINE),
    ("The fleet itself", ITSELF),
)


def page() -> str:
    """All rules, with the thresholds of an untouched configuration."""
    settings = AlertsSection()
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: AlertsSection) -> Iterator[str]:
    yield "| rule | severity | holds for | threshold |"
    yield "|---|---|---|---|"
    for _, rules in _CHAPTERS:
        yield from (_row(rule, settings) for rule in rules)
    for title, rules in _CHAPTERS:
        yield f"\n## {title}"
        for rule in rules:
            yield from _section(rule, settings)


def _row(rule: Rule, settings: AlertsSection) -> str:
    times = f"{rule.factor:.2g} × " if rule.factor != 1 else ""
    where = f"{times}`alerts.{rule.setting}` = {rule.threshold(settings):.4g}" if rule.setting else ""
    return f"| [{rule.name}](#{rule.name.lower()}) | {rule.severity} | {_time(rule.hold)} | {where} |"


def _section(rule: Rule, settings: AlertsSection) -> Iterator[str]:
    yield f"\n### {rule.name}\n"
    yield f"**{rule.summary}** {rule.meaning}\n"
    yield f"*What to do:* {rule.remedy}\n"
    about = " and ".join(rule.labels) or "fleet"
    where = "in the app and in Prometheus" if rule.in_app else "in Prometheus only"
    ends = f"ends {_time(rule.keep_firing)} after its condition" if rule.keep_firing else "ends with its condition"
    yield f"One per {about}; {where}; {ends}. In Prometheus:\n"
    yield f"```promql\n{rule.promql(settings)}\n```"


def _time(seconds: float) -> str:
    return say.age(seconds).replace("m 00s", " min") if seconds else "at once"
