"""The configuration: look, change, reload, save.

Paths of keys are written as in the file, `queue.max_size`; the configuration itself in camelCase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from actors.config.sources import ConfigTrouble, Outcome
from fleet.common.errors import BadRequest
from fleet.common.times import iso
from fleet.config import Config, schema
from fleet.config.live.diff import Change
from fleet.config.live.effective import hints
from fleet.config.loading.ignored_keys import HEALTH_CHECK, health_check, known_config
from fleet.config.loading.yaml_reader import MOST_NODES
from fleet.config.schema.introspection import fields, spellings
from fleet.config.schema.types import Section
from fleet.security.roles import Role
from web.admin.kit.json_body import json_object
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import ISO, Each, Maybe, OneOf, Said

topic = RouteGroup("config", "The configuration: look, change, reload, save.")

DRY: Final = Param("dry_run", bool, False, "true: say what would change, and change nothing")
CHANGE: Final = {"path": str, "before": object, "after": object, "effect": OneOf(("now", "restart"))}
PROBLEM: Final = {"path": str, "message": str, "source": str}
CHANGED: Final = {
    "success": bool,
    "message": str,
    "config": dict,
    "changed": [CHANGE],
    "needsRestart": [str],
    "ignored": Said([str], "keys of the reference program that mean nothing here"),
    "hints": Said([str], "what was taken, and is probably not what was meant"),
    "dryRun": bool,
}
MOST_NOTED: Final = 100
"""Changes of one call that the audit log describes; it names more."""
SECTIONS: Final = {name: shape.model for name, _, shape in fields(Config) if shape.model is not None and not shape.many}


class SectionBody(BaseModel):
    """Some or all keys of the section; what is not given stays as it is."""

    model_config = ConfigDict(extra="allow")


class PathBody(Section):
    """Which file."""

    config_path: str | None = Field(
        None, description="A .yml, .yaml or .json file in `reload.directory`; none = the file of the start."
    )


VALID_SECTIONS: Final = [*(str(Config.model_fields[name].alias) for name in SECTIONS), HEALTH_CHECK]


class UnknownSection(BadRequest):
    """No section of the configuration has this name."""

    def __init__(self) -> None:
        super().__init__("Invalid configuration section", details=f"it must be one of {', '.join(VALID_SECTIONS)}")
        self.fields = {"validSections": VALID_SECTIONS}


@topic.get(
    "/config",
    "The configuration, secrets redacted, and where each value came from.",
    returns={
        "success": bool,
        "config": dict,
        "source": str,
        "sources": Each(str),
        "unsaved": [str],
        "needsRestart": [str],
        "trouble": Maybe({"since": ISO, "problems": [PROBLEM]}),
    },
    seed=True,
)
async def look(asked: AdminRequest) -> dict[str, Any]:
    """What is wanted; `needsRestart` are the keys for which the process still goes by an earlier value."""
    settings = asked.context.settings
    return {
        "success": True,
        "config": _shown(settings.config),
        "source": settings.source,
        "sources": settings.sources(),
        "unsaved": settings.unsaved,
        "needsRestart": settings.late,
        "trouble": _trouble(settings.trouble),
    }


@topic.post(
    "/config",
    "Change the configuration: the keys that are given; lists are replaced as a whole.",
    role=Role.ADMIN,
    action="change configuration",
    query=(DRY,),
    body=Config,
    reads=False,
    returns=CHANGED,
    fails=(400, 503),
    seed=True,
)
async def change(asked: AdminRequest) -> dict[str, Any]:
    """All of it is checked before any of it takes effect."""
    given, ignored = known_config(await json_object(MOST_NODES), asked.context.settings.config)
    outcome = await asked.context.settings.change(given, dry=asked.query["dry_run"])
    return _told(asked, outcome, "Configuration updated successfully", ignored)


@topic.patch(
    "/config/<section>",
    "Change one section of the configuration, named in camelCase or as in the file.",
    action="change configuration section",
    query=(DRY,),
    body=SectionBody,
    reads=False,
    returns={**CHANGED, "section": str},
    fails=(400, 503),
    seed=True,
)
async def change_section(asked: AdminRequest, section: str) -> dict[str, Any]:
    """All of it is checked before any of it takes effect."""
    name = HEALTH_CHECK if section == HEALTH_CHECK else spellings(Config).get(section)
    if name not in SECTIONS and name != HEALTH_CHECK:
        raise UnknownSection
    given, ignored = known_config({name: await json_object(MOST_NODES)}, asked.context.settings.config)
    outcome = await asked.context.settings.change(given, dry=asked.query["dry_run"])
    message = f"Configuration section '{section}' updated successfully"
    return {**_told(asked, outcome, message, ignored), "section": section}


@topic.post(
    "/config/reload",
    "Read the configuration from its file, or another one beside it; unsaved changes are dropped, except of servers.",
    role=Role.ADMIN,
    action="reload configuration",
    query=(DRY,),
    body=PathBody,
    returns=CHANGED,
    fails=(400, 404, 503),
    seed=True,
)
async def reload(asked: AdminRequest) -> dict[str, Any]:
    """A file that cannot be used changes nothing."""
    outcome = await asked.context.settings.reload(asked.body.config_path, dry=asked.query["dry_run"])
    return _told(asked, outcome, "Configuration reloaded successfully")


@topic.post(
    "/config/save",
    "Write the configuration to its file, or another one beside it; comments in the file stay where they can.",
    role=Role.ADMIN,
    action="save configuration",
    body=PathBody,
    returns={"success": bool, "message": str, "path": str, "overridden": [str], "leftOut": [str]},
    fails=(400, 409, 500, 503),
    seed=True,
)
async def save(asked: AdminRequest) -> dict[str, Any]:
    """`overridden`: keys that a restart would read differently, because environment or flags win over the file."""
    saved = await asked.context.settings.save(asked.body.config_path)
    asked.note.about(file=saved.path.name)
    return {
        "success": True,
        "message": "Configuration saved successfully",
        "path": str(saved.path),
        "overridden": saved.overridden,
        "leftOut": saved.left_out,
    }


@topic.get(
    "/config/schema",
    "The JSON Schema of the configuration.",
    returns={"success": bool, "schema": dict},
    seed=True,
)
async def json_schema(asked: AdminRequest) -> dict[str, Any]:
    """In camelCase, as the other routes have it."""
    found = schema()
    about = "How servers are watched, in the reference's words; what has a counterpart in `health` changes that."
    found["properties"][HEALTH_CHECK] = {"type": "object", "description": about}
    return {"success": True, "schema": found}


def _told(asked: AdminRequest, outcome: Outcome, message: str, ignored: Sequence[str] = ()) -> dict[str, Any]:
    _note(asked, outcome)
    return {
        "success": True,
        "message": "Nothing was changed: this was a dry run" if outcome.dry else message,
        "config": _shown(outcome.config),
        "changed": [_change(change) for change in outcome.changes],
        "needsRestart": outcome.late,
        "ignored": list(ignored),
        "hints": hints(outcome.config),
        "dryRun": outcome.dry,
    }


def _note(asked: AdminRequest, outcome: Outcome) -> None:
    """For the audit log."""
    asked.note.about(keys=", ".join(change.path for change in outcome.changes), dry="yes" if outcome.dry else "")
    if not outcome.dry:
        told = outcome.changes[:MOST_NOTED]
        before = {change.path: change.before for change in told}
        asked.note.change(before=before, after={change.path: change.after for change in told})


def _change(change: Change) -> dict[str, Any]:
    return {"path": change.path, "before": change.before, "after": change.after, "effect": change.effect}


def _shown(config: Config) -> dict[str, Any]:
    shown = config.model_dump(mode="json", by_alias=True)  # secrets come out as stars
    return {**shown, HEALTH_CHECK: health_check(config.health)}


def _trouble(trouble: ConfigTrouble | None) -> dict[str, Any] | None:
    if trouble is None:
        return None
    problems = [{"path": each.path, "message": each.message, "source": each.source} for each in trouble.problems]
    return {"since": iso(trouble.since), "problems": problems}
