"""OpenAPI 3.1, made from the route table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from fleet.config.schema.json_schema import StandardSchema
from fleet.security.roles import Role
from web.admin.kit.parameters import Param
from web.admin.kit.routes import Route, RouteGroup
from web.admin.kit.schemas import schema

_PARAMETER: Final = re.compile(r"<(?:path:)?(\w+)>")
_ERROR: Final = {
    "type": "object",
    "properties": {"success": {"const": False}, "error": {"type": "string"}, "details": {"type": "string"}},
    "required": ["success", "error"],
}
_WHY: Final = {
    202: "accepted: it goes on in the background",
    400: "the request cannot be read; every problem is named",
    401: "a valid API key is needed",
    403: "the key's role does not suffice, or the page's origin is not allowed",
    404: "there is no such thing",
    408: "the request body took too long to arrive",
    409: "it exists already, or its state forbids it",
    413: "the request body is too large",
    500: "it failed; the error says why",
    502: "the server did not do it",
    503: "not now; Retry-After says when",
    504: "the server did not do it in time",
}
_EVERYWHERE: Final = (401, 403)
_TYPES: Final = {int: "integer", float: "number", str: "string", bool: "boolean"}


def document(topics: Iterable[RouteGroup], version: str) -> dict[str, Any]:
    """The whole description."""
    listed = list(topics)
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for topic in listed:
        for entry in topic.entries:
            paths.setdefault(readable(entry.path), {})[entry.method.lower()] = _operation(entry, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fleet for Ollama: admin API",
            "version": version,
            "description": "Beside it stand Ollama's own API and the OpenAI- and Anthropic-compatible one, unchanged.",
        },
        "tags": [{"name": topic.name, "description": topic.about} for topic in listed if topic.entries],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def readable(rule: str) -> str:
    """A rule of Werkzeug's as OpenAPI writes it."""
    return _PARAMETER.sub(r"{\1}", rule)


def statuses(entry: Route) -> list[int]:
    """What a route may answer beside 200, in order."""
    found = set(entry.fails)
    if not entry.open:
        found |= set(_EVERYWHERE)
    if entry.body is not None:
        found |= {400, 408, 413}
    if entry.query:
        found.add(400)
    if "<" in entry.path:
        found.add(404)
    return sorted(found)


def _operation(entry: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _identifier(entry),
        "tags": [entry.topic],
        "summary": entry.does,
        "x-role": entry.role.word,
        "parameters": [*_path_parameters(entry), *(_query_parameter(param) for param in entry.query)],
        "responses": _responses(entry),
        "security": [] if entry.open else [{}, {"bearer": []}, {"header": []}],
    }
    if entry.body is not None:
        found["requestBody"] = {"content": {"application/json": {"schema": _body(entry, schemas)}}}
    return found


def _identifier(entry: Route) -> str:
    words = _PARAMETER.sub(r"\1", entry.path).strip("/").replace("api/orchestrator", "fleet")
    return f"{entry.method.lower()}_{re.sub(r'[^A-Za-z0-9]+', '_', words)}"


def _path_parameters(entry: Route) -> list[dict[str, Any]]:
    names = _PARAMETER.findall(entry.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameter(param: Param) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": _TYPES[param.kind]}
    if param.least is not None:
        shown["minimum"] = param.least
    if param.most is not None:
        shown["maximum"] = param.most
    if param.words:
        shown["enum"] = list(param.words)
    if param.default is not None:
        shown["default"] = param.default
    return {"name": param.name, "in": "query", "description": param.about, "schema": shown}


def _responses(entry: Route) -> dict[str, Any]:
    content = {"schema": schema(entry.returns)} if entry.media == "application/json" else {}
    fine: dict[str, Any] = {"description": entry.does, "content": {entry.media: content}}
    if any(param.name == "stream" for param in entry.query):
        fine["content"] = {**fine["content"], "application/x-ndjson": {}}
    told = {str(status): _told(status, entry) for status in statuses(entry)}
    return {"200": fine, **told}


def _told(status: int, entry: Route) -> dict[str, Any]:
    shown = {} if status < 400 else {"$ref": "#/components/schemas/Error"}
    if status >= 400 and entry.bare:  # probes have bodies of their own
        shown = {"type": "object"}
    return {"description": _WHY[status], "content": {"application/json": {"schema": shown}}}


def _body(entry: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    assert entry.body is not None
    model = entry.body
    found = model.model_json_schema(
        by_alias=True, ref_template="#/components/schemas/{model}", schema_generator=StandardSchema
    )
    schemas.update(found.pop("$defs", {}))
    schemas[model.__name__] = found
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def rows(topics: Iterable[RouteGroup]) -> str:
    """The table of docs/api.md, as Markdown; generated so that it cannot go stale."""
    head = "| method and path | role | what it does | errors |\n|---|---|---|---|\n"
    tables = ((each.about.rstrip("."), "".join(map(_row, each.entries))) for each in topics if each.entries)
    return "\n".join(f"### {about}\n\n{head}{body}" for about, body in tables)


def _row(entry: Route) -> str:
    query = "".join(f"{'&' if at else '?'}{param.name}=" for at, param in enumerate(entry.query))
    body = "" if entry.body is None else f" Body: {_fields(entry)}."
    role = "open" if entry.open else entry.role.word if entry.role > Role.CLIENT else "any key"
    own = [str(status) for status in statuses(entry) if status not in _EVERYWHERE]
    path = _PARAMETER.sub(r":\1", entry.path)
    return f"| `{entry.method} {path}{query}` | {role} | {entry.does}{body} | {' '.join(own)} |\n"


def _fields(entry: Route) -> str:
    assert entry.body is not None
    fields = entry.body.model_fields.items()
    return ", ".join(f"`{info.alias or name}{'' if info.is_required() else '?'}`" for name, info in fields) or "`{}`"
