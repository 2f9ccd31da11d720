"""The configuration: look, change, reload, save.

Paths of keys are written as in the file, `queue.max_size`; the configuration itself in camelCase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar

from msgspec import field
from pydantic import BaseModel, ConfigDict, Field

from actors.config.sources import ConfigTrouble, Outcome
from fleet.common.errors import BadRequest
from fleet.common.times import iso
from fleet.config import Config, schema
from fleet.config.live.effective import hints
from fleet.config.loading.ignored_keys import HEALTH_CHECK, health_check, known_config
from fleet.config.loading.yaml_reader import MOST_NODES
from fleet.config.schema.introspection import fields, spellings
from fleet.config.schema.types import Section
from fleet.security.roles import Role
from web.admin.kit.answers import HINTS, IGNORED, ISO, Answer, JsonObject, MessageAnswer
from web.admin.kit.json_body import json_object
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("config", "The configuration: look, change, reload, save.")

DRY: Final = Param("dry_run", bool, False, "true: say what would change, and change nothing")
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


class ProblemJson(JsonObject, kw_only=True):
    """What is wrong with a key."""

    path: str
    message: str
    source: str


class TroubleJson(JsonObject, kw_only=True):
    """Why the last change of a file did not take effect."""

    since: ISO
    problems: list[ProblemJson]


class ConfigAnswer(Answer, kw_only=True):
    """The configuration, and where it came from."""

    config: dict[str, Any]
    source: str
    sources: dict[str, str]
    unsaved: list[str]
    needs_restart: list[str]
    trouble: TroubleJson | None


class ChangeJson(JsonObject, kw_only=True):
    """One key before and after."""

    path: str
    before: object
    after: object
    effect: Literal["now", "restart"]


class ChangedConfigAnswer(MessageAnswer, kw_only=True):
    """The configuration after a change, and what is different."""

    config: dict[str, Any]
    changed: list[ChangeJson]
    needs_restart: list[str]
    ignored: IGNORED
    hints: HINTS
    dry_run: bool


class ChangedSectionAnswer(ChangedConfigAnswer, kw_only=True):
    """The same of one section."""

    section: str


class SavedConfigAnswer(MessageAnswer, kw_only=True):
    """Where it was written."""

    path: str
    overridden: list[str]
    left_out: list[str]


class ConfigSchemaAnswer(Answer, kw_only=True):
    """JSON Schema."""

    config_schema: dict[str, Any] = field(name="schema")


Changed = TypeVar("Changed", bound=ChangedConfigAnswer)


@topic.get(
    "/config",
    "The configuration, secrets redacted, and where each value came from.",
    seed=True,
)
async def look(asked: AdminRequest) -> ConfigAnswer:
    """What is wanted; `needsRestart` are the keys for which the process still goes by an earlier value."""
    settings = asked.context.settings
    return ConfigAnswer(
        config=_shown(settings.config),
        source=settings.source,
        sources=settings.sources(),
        unsaved=settings.unsaved,
        needs_restart=settings.late,
        trouble=_trouble(settings.trouble),
    )


@topic.post(
    "/config",
    "Change the configuration: the keys that are given; lists are replaced as a whole.",
    role=Role.ADMIN,
    action="change configuration",
    query=(DRY,),
    body=Config,
    reads=False,
    fails=(400, 503),
    seed=True,
)
async def change(asked: AdminRequest) -> ChangedConfigAnswer:
    """All of it is checked before any of it takes effect."""
    given, ignored = known_config(await json_object(MOST_NODES), asked.context.settings.config)
    outcome = await asked.context.settings.change(given, dry=asked.query["dry_run"])
    return _told(ChangedConfigAnswer, asked, outcome, "Configuration updated successfully", ignored)


@topic.patch(
    "/config/<section>",
    "Change one section of the configuration, named in camelCase or as in the file.",
    action="change configuration section",
    query=(DRY,),
    body=SectionBody,
    reads=False,
    fails=(400, 503),
    seed=True,
)
async def change_section(asked: AdminRequest, section: str) -> ChangedSectionAnswer:
    """All of it is checked before any of it takes effect."""
    name = HEALTH_CHECK if section == HEALTH_CHECK else spellings(Config).get(section)
    if name not in SECTIONS and name != HEALTH_CHECK:
        raise UnknownSection
    given, ignored = known_config({name: await json_object(MOST_NODES)}, asked.context.settings.config)
    outcome = await asked.context.settings.change(given, dry=asked.query["dry_run"])
    message = f"Configuration section '{section}' updated successfully"
    return _told(ChangedSectionAnswer, asked, outcome, message, ignored, section=section)


@topic.post(
    "/config/reload",
    "Read the configuration from its file, or another one beside it; unsaved changes are dropped, except of servers.",
    role=Role.ADMIN,
    action="reload configuration",
    query=(DRY,),
    body=PathBody,
    fails=(400, 404, 503),
    seed=True,
)
async def reload(asked: AdminRequest) -> ChangedConfigAnswer:
    """A file that cannot be used changes nothing."""
    outcome = await asked.context.settings.reload(asked.body.config_path, dry=asked.query["dry_run"])
    return _told(ChangedConfigAnswer, asked, outcome, "Configuration reloaded successfully")


@topic.post(
    "/config/save",
    "Write the configuration to its file, or another one beside it; comments in the file stay where they can.",
    role=Role.ADMIN,
    action="save configuration",
    body=PathBody,
    fails=(400, 409, 500, 503),
    seed=True,
)
async def save(asked: AdminRequest) -> SavedConfigAnswer:
    """`overridden`: keys that a restart would read differently, because environment or flags win over the file."""
    saved = await asked.context.settings.save(asked.body.config_path)
    asked.note.about(file=saved.path.name)
    return SavedConfigAnswer(
        message="Configuration saved successfully",
        path=str(saved.path),
        overridden=saved.overridden,
        left_out=saved.left_out,
    )


@topic.get(
    "/config/schema",
    "The JSON Schema of the configuration.",
    seed=True,
)
async def json_schema(asked: AdminRequest) -> ConfigSchemaAnswer:
    """In camelCase, as the other routes have it."""
    found = schema()
    about = "How servers are watched, in the reference's words; what has a counterpart in `health` changes that."
    found["properties"][HEALTH_CHECK] = {"type": "object", "description": about}
    return ConfigSchemaAnswer(config_schema=found)


def _told(
    kind: type[Changed], asked: AdminRequest, outcome: Outcome, message: str, ignored: Sequence[str] = (), **more: Any
) -> Changed:
    _note(asked, outcome)
    return kind(
        message="Nothing was changed: this was a dry run" if outcome.dry else message,
        config=_shown(outcome.config),
        changed=[
            ChangeJson(path=each.path, before=each.before, after=each.after, effect=each.effect)
            for each in outcome.changes
        ],
        needs_restart=outcome.late,
        ignored=list(ignored),
        hints=hints(outcome.config),
        dry_run=outcome.dry,
        **more,
    )


def _note(asked: AdminRequest, outcome: Outcome) -> None:
    """For the audit log."""
    asked.note.about(keys=", ".join(change.path for change in outcome.changes), dry="yes" if outcome.dry else "")
    if not outcome.dry:
        told = outcome.changes[:MOST_NOTED]
        before = {change.path: change.before for change in told}
        asked.note.change(before=before, after={change.path: change.after for change in told})


def _shown(config: Config) -> dict[str, Any]:
    shown = config.model_dump(mode="json", by_alias=True)  # secrets come out as stars
    return {**shown, HEALTH_CHECK: health_check(config.health)}


def _trouble(trouble: ConfigTrouble | None) -> TroubleJson | None:
    if trouble is None:
        return None
    problems = [ProblemJson(path=each.path, message=each.message, source=each.source) for each in trouble.problems]
    return TroubleJson(since=iso(trouble.since), problems=problems)
