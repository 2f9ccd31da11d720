"""Calls to the admin API whose every answer is held against what the route table promises."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import httpx
import jsonschema

from tests.kit.fleets.served import Served
from web.admin.kit.routes import Route
from web.admin.kit.schemas import schema
from web.admin.route_table import entries_of
from web.http.ports import Face

ROOT = "/api/orchestrator"
ALWAYS = {400, 401, 403, 404, 413}


async def ask(fleet: Served, method: str, path: str, body: object = None, *, status: int = 200, **more: Any) -> Any:
    """The JSON of one call under the admin root, which must have this status and the promised shape."""
    async with fleet.client() as client:
        answer = await client.request(method, ROOT + path, json=body, **more)
    assert answer.status_code == status, (method, path, answer.status_code, answer.text)
    return checked(method, ROOT + path, answer)


def checked(method: str, path: str, answer: httpx.Response, face: Face = Face.PROXY) -> Any:
    """The JSON of an answer, held against the table."""
    entry = entry_of(method, path, face)
    if answer.status_code >= 400:
        assert answer.status_code in ALWAYS | set(entry.fails), f"{entry.path} does not promise {answer.status_code}"
        found = answer.json()
        assert found["success"] is False
        assert isinstance(found["error"], str)
        assert found["error"]
        return found
    found = answer.json()
    _validator(entry).validate(found)
    return found


def entry_of(method: str, path: str, face: Face = Face.PROXY) -> Route:
    """The route that serves a path on one of the ports, as Werkzeug chooses: fixed words before parameters."""
    path = path.partition("?")[0]
    fitting = [entry for entry in entries_of(face) if entry.method == method and _pattern(entry.path).fullmatch(path)]
    assert fitting, f"no route for {method} {path}"
    return min(fitting, key=lambda entry: (entry.path.count("<"), -len(entry.path)))


@cache
def _pattern(rule: str) -> re.Pattern[str]:
    escaped = re.sub(r"<path:\w+>", ".+", rule)
    return re.compile(re.sub(r"<\w+>", "[^/]+", escaped))


@cache
def _validator(entry: Route) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(entry.returns))
