"""Servers: list, add, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, SecretStr
from pydantic.alias_generators import to_camel

from actors.config.backend_url_check import checked
from fleet.common.errors import BadRequest, Conflict, ServerNotFound
from fleet.common.ids import ServerId
from fleet.config import ConfigError, ServerSpec, normalise_url, parse_server
from fleet.config.live.diff import is_redacted
from fleet.config.loading.ignored_keys import known_server
from fleet.config.schema.servers import MaxConcurrency, Tag, Url
from fleet.config.schema.types import Secret, Section, Whole
from fleet.config.schema.urls import hint
from fleet.security.roles import Role
from web.admin.kit.answers import HINTS, IGNORED, Answer, JsonObject
from web.admin.kit.json_body import json_object
from web.admin.kit.parameters import Param, body_of
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.servers.views import ServerJson, describe
from web.http.units import take_turns

if TYPE_CHECKING:
    from actors.system import System

FIRST_PROBE: Final = 3.0
"""Seconds an `add` waits for the first verdict on the new server, so that its answer can tell."""

topic = RouteGroup("servers", "The servers of the fleet.")


class AsideJson(JsonObject, kw_only=True):
    """A server that the store holds and that cannot be used."""

    id: str
    why: str


class ServersAnswer(Answer, kw_only=True):
    """All servers."""

    count: int
    servers: list[ServerJson]
    set_aside: Annotated[
        list[AsideJson], "servers that the store holds and that cannot be used: add them anew, or remove them"
    ]


class ServerAnswer(Answer, kw_only=True):
    """One server."""

    server: ServerJson


class AddedAnswer(Answer, kw_only=True):
    """The new server."""

    server: ServerJson
    id: str
    url: str
    max_concurrency: int | Literal["auto"]
    ignored: IGNORED
    hints: HINTS


class RemovedAnswer(Answer, kw_only=True):
    """The server that there is no more."""

    id: str


class ChangedAnswer(Answer, kw_only=True):
    """The server after a change, and the names of what is different."""

    id: str
    max_concurrency: int | Literal["auto"]
    server: ServerJson
    changed: list[str]
    ignored: IGNORED
    hints: HINTS


class Taken(Conflict):
    """The id or the URL belongs to another server; `fields` are added to the error body."""

    def __init__(self, message: str, fields: dict[str, str]) -> None:
        super().__init__(message)
        self.fields = fields


class ServerPatch(Section):
    """What may be changed of a server; what is absent stays."""

    url: Url | None = Field(None, description="Another base URL; open requests end on the old one.")
    max_concurrency: MaxConcurrency | None = Field(None, description="Requests at one time, or auto.")
    priority: Annotated[Whole, Field(ge=-100, le=100)] | None = Field(None, description="Higher is preferred.")
    tags: Annotated[tuple[Tag, ...], Field(max_length=64)] | None = Field(None, description="Free words.")
    api_key: Secret | None = Field(None, description="Sent to the server as a bearer token; null removes it.")


@topic.get(
    "/servers",
    "All servers with their states.",
    seed=True,
)
async def all_servers(asked: AdminRequest) -> ServersAnswer:
    system, at = asked.system, asked.reading()
    shown = []
    for number, cell in enumerate(list(system.servers.values())):
        shown.append(describe(system.config, system.scheduler.expectations, cell, at))
        await take_turns(number)
    aside = [AsideJson(id=server, why=why) for (_, server), why in system.journal.aside.items()]
    return ServersAnswer(count=len(shown), servers=shown, set_aside=aside)


@topic.get("/servers/<server>", "One server.")
async def one_server(asked: AdminRequest, server: str) -> ServerAnswer:
    system = asked.system
    cell = system.cell(ServerId(server))
    return ServerAnswer(server=describe(system.config, system.scheduler.expectations, cell, asked.reading()))


@topic.post(
    "/servers/add",
    "Add a server. It is probed; one that does not answer is accepted too, and marked.",
    role=Role.ADMIN,
    action="add server",
    body=ServerSpec,
    reads=False,
    fails=(409,),
    seed=True,
)
async def add(asked: AdminRequest) -> AddedAnswer:
    system = asked.system
    given, ignored = known_server(await json_object())
    spec = _spec(given)
    asked.note.about(server=spec.id)
    asked.note.change(after=_told(spec))
    if spec.id in system.servers:
        raise Taken(f"server '{spec.id}' already exists", {})
    _check_url_free(system, spec, str(given["url"]))
    await checked(spec.url, system.config.security.backends)
    cell = system.add_server(spec)
    await system.probe(spec.id, FIRST_PROBE)
    return AddedAnswer(
        server=describe(system.config, system.scheduler.expectations, cell, asked.reading()),
        id=spec.id,
        url=spec.url,
        max_concurrency=spec.max_concurrency,
        ignored=ignored,
        hints=_hints(spec),
    )


@topic.delete(
    "/servers/<server>",
    "Remove a server, when its open requests have ended; forget one that was set aside.",
    role=Role.ADMIN,
    action="remove server",
    query=(
        Param("force", bool, False, "Cut its open requests off instead."),
        Param("drain", bool, True, "The same, the other way round."),
    ),
    fails=(409, 503),
    seed=True,
)
async def remove(asked: AdminRequest, server: str) -> RemovedAnswer:
    asked.note.about(server=server)
    aside = ("server", server) in asked.system.journal.aside
    if ServerId(server) not in asked.system.servers and not aside:
        raise ServerNotFound(f"server '{server[:100]}' not found")
    drain = asked.query["drain"] and not asked.query["force"]
    await asked.system.remove_server(ServerId(server), drain=drain)  # goes on if the client leaves
    return RemovedAnswer(id=server)


@topic.patch(
    "/servers/<server>",
    "Change a server: url, maxConcurrency, priority, tags, apiKey. Open requests go on.",
    action="change server",
    body=ServerPatch,
    reads=False,
    fails=(409,),
    seed=True,
)
async def change(asked: AdminRequest, server: str) -> ChangedAnswer:
    system = asked.system
    asked.note.about(server=server)
    given, ignored = known_server(await json_object())
    patch = body_of(ServerPatch, given)
    before = system.cell(ServerId(server)).state.spec
    after = _patched(before, patch, ignored)
    if normalise_url(after.url) != normalise_url(before.url):
        _check_url_free(system, after, after.url)
        await checked(after.url, system.config.security.backends)
        before = system.cell(ServerId(server)).state.spec  # others may have changed it meanwhile
        after = _patched(before, patch, ignored)
    asked.note.change(before=_told(before), after=_told(after))
    cell = system.change_server(after)
    if after.url != before.url:
        await system.probe(after.id, FIRST_PROBE)
    changed = [name for name in ServerPatch.model_fields if getattr(after, name) != getattr(before, name)]
    return ChangedAnswer(
        id=after.id,
        max_concurrency=after.max_concurrency,
        server=describe(system.config, system.scheduler.expectations, cell, asked.reading()),
        changed=[ServerPatch.model_fields[name].alias or name for name in changed],
        ignored=ignored,
        hints=_hints(after),
    )


def _hints(spec: ServerSpec) -> list[str]:
    what = hint(spec.url)
    return [f"url: {what}"] if what else []


def _told(spec: ServerSpec) -> dict[str, Any]:
    """For the audit log."""
    return spec.model_dump(mode="json", by_alias=True)


def _patched(spec: ServerSpec, patch: ServerPatch, ignored: list[str]) -> ServerSpec:
    given = {name: getattr(patch, name) for name in patch.model_fields_set}
    if not given and not ignored:
        words = (field.alias or name for name, field in ServerPatch.model_fields.items())
        raise BadRequest("nothing to change", details=f"give one of {', '.join(words)}")
    if _is_redacted(patch.api_key):
        del given["api_key"]  # it stays as it is
    for name, value in given.items():
        if value is None and name != "api_key":
            raise BadRequest(f"{ServerPatch.model_fields[name].alias}: may not be null")
    after = spec.model_copy(update=given)
    if spec.api_key is not None and "api_key" not in given and normalise_url(after.url) != normalise_url(spec.url):
        # who changes where a server is must know its key, or the key could be sent anywhere
        raise BadRequest("apiKey: must be given again, because the URL changes", details="null: it has none there")
    return after


def _is_redacted(key: SecretStr | None) -> bool:
    return key is not None and is_redacted(key.get_secret_value())


def _spec(given: dict[str, object]) -> ServerSpec:
    """A server from the body of `add`. Raises BadRequest with every problem, unknown keys included."""
    try:
        spec = parse_server(given)
        if _is_redacted(spec.api_key):
            raise BadRequest("apiKey: is redacted, and there is nothing that it could stand for")
        return spec
    except ConfigError as error:
        problems = [f"{to_camel(each.path)}: {each.message}" for each in error.problems]  # in this API's spelling
    if given.get("id") and given.get("url"):
        raise BadRequest("; ".join(problems), details="\n".join(problems))
    raise BadRequest("id and url are required", details="\n".join(problems))


def _check_url_free(system: System, spec: ServerSpec, requested: str) -> None:
    url = normalise_url(spec.url)
    for cell in system.servers.values():
        if cell.state.id != spec.id and normalise_url(cell.state.spec.url) == url:
            where = {"existingServerId": cell.state.id, "existingUrl": cell.state.spec.url}
            asked = {"requestedUrl": requested, "normalizedUrl": url}
            raise Taken("a server with an equivalent URL already exists", where | asked)
