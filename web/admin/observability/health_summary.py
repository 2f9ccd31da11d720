"""The verdict line, as REST shows it: names only for those who may see them."""

from __future__ import annotations

from typing import Annotated

from actors.system import System
from fleet.common.times import iso
from fleet.observability.health_summary.summary import Level
from web.admin.kit.answers import JsonObject


class VerdictJson(JsonObject, kw_only=True):
    """The verdict line."""

    level: Level
    code: Annotated[str, "a fixed word: what it is about"]
    headline: str
    since: Annotated[str, "when the condition began"]


VERDICT = Annotated[
    VerdictJson, "the one sentence on the state of the fleet, a few seconds behind so that it does not flap"
]


def verdict_of(system: System, *, named: bool) -> VerdictJson:
    """What stands in an answer as `VERDICT`."""
    verdict = system.monitor.verdict
    headline = verdict.headline if named else verdict.plain
    return VerdictJson(level=verdict.level, code=verdict.code, headline=headline, since=iso(verdict.since))
