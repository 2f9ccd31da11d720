"""The verdict line, as REST shows it: names only for those who may see them."""

from __future__ import annotations

from typing import Any, Final

from actors.system import System
from fleet.common.times import iso
from fleet.observability.health_summary.summary import Level
from web.admin.kit.schemas import ISO, OneOf, Said

VERDICT: Final = Said(
    {
        "level": OneOf(tuple(level.value for level in Level)),
        "code": Said(str, "a fixed word: what it is about"),
        "headline": str,
        "since": Said(ISO, "when the condition began"),
    },
    "the one sentence on the state of the fleet, a few seconds behind so that it does not flap",
)


def verdict_of(system: System, *, named: bool) -> dict[str, Any]:
    """In `VERDICT`'s shape."""
    verdict = system.monitor.verdict
    headline = verdict.headline if named else verdict.plain
    return {"level": verdict.level.value, "code": verdict.code, "headline": headline, "since": iso(verdict.since)}
