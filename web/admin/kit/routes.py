"""Routes as data: every route of the admin API says once what it is, does, takes, answers, and who may ask.

From this one table come the routes themselves, the roles that are enforced, OpenAPI and docs/api.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from pydantic import BaseModel
from quart import Blueprint, Response

from actors.system import System
from fleet.common.times import ClockReading
from fleet.security.roles import Identity, Role
from web.admin.kit.answers import answer_of
from web.admin.kit.json_body import json_object
from web.admin.kit.parameters import Param, body_of, query_of
from web.asgi.audited_route import ADMIN, Note, audited
from web.asgi.quart_request import scope
from web.http import responses
from web.http.units import ROOT
from web.security import api_key_auth

if TYPE_CHECKING:
    from web.admin.kit.context import AppContext

View = Callable[..., Awaitable["Response | Struct | dict[str, Any]"]]
AnyView = TypeVar("AnyView", bound=View)


@dataclass(slots=True, eq=False)
class AdminRequest:
    """One call of the admin API, read and checked.

    `query` has every declared parameter (None or its default when it was not given), `body` the declared model. `by`
    is who asks. `note` is there for audited routes: say in it what the call is about, and what changed.
    """

    context: AppContext
    by: Identity
    query: Mapping[str, Any]
    body: Any = None
    _note: Note | None = None

    @property
    def system(self) -> System:
        """The running fleet."""
        return self.context.system

    def reading(self) -> ClockReading:
        """Both clocks: to be read once for an answer, when it is written."""
        return self.context.system.clock.reading()

    @property
    def note(self) -> Note:
        """The line that the audit log will get."""
        assert self._note is not None, "only routes with an `action` are audited"
        return self._note


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Route:
    """One route. `path` is a rule of Werkzeug's with the root before it; `fails` are statuses beside the usual ones.

    `returns` is the type of a 200: the class of answers that the view is annotated with, or what is given; `media` is
    its media type if that is not JSON. `seed`: the orchestrator's reference has it.
    `reads`: the body is read before the view is called (else it reads the body itself).
    `open`: needs no key (probes). `bare`: its errors have bodies of their own.
    `action`: what the audit log calls it; only routes that change something have one.
    """

    topic: str
    method: str
    path: str
    does: str
    role: Role
    view: View
    returns: Any = dict
    media: str = "application/json"
    fails: tuple[int, ...] = ()
    query: tuple[Param, ...] = ()
    body: type[BaseModel] | None = None
    reads: bool = True
    open: bool = False
    bare: bool = False
    action: str = ""
    seed: bool = False

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


class RouteGroup:
    """One blueprint's worth of routes. Handlers are module-level functions: `async def view(asked, **path)`."""

    def __init__(self, name: str, about: str, root: str = ROOT) -> None:
        self.name = name
        self.about = about
        self.entries: list[Route] = []
        self._root = root

    def get(self, path: str, does: str, *, role: Role = Role.OPERATOR, **more: Any) -> Callable[[AnyView], AnyView]:
        """A route that changes nothing."""
        return self._route("GET", path, does, role, more)

    def post(self, path: str, does: str, *, role: Role = Role.OPERATOR, **more: Any) -> Callable[[AnyView], AnyView]:
        """A route that does something; it needs an `action`, unless it changes nothing."""
        return self._route("POST", path, does, role, more)

    def patch(self, path: str, does: str, *, role: Role = Role.ADMIN, **more: Any) -> Callable[[AnyView], AnyView]:
        """A route that changes a part of something."""
        return self._route("PATCH", path, does, role, more)

    def delete(self, path: str, does: str, *, role: Role = Role.OPERATOR, **more: Any) -> Callable[[AnyView], AnyView]:
        """A route that ends something."""
        return self._route("DELETE", path, does, role, more)

    def blueprint(self, context: AppContext) -> Blueprint:
        """The routes, in one context."""
        routes = Blueprint(self.name, __name__)
        for entry in self.entries:
            handler = _handler(entry, context)
            endpoint = f"{entry.method}_{entry.path}".replace(".", "_")
            routes.add_url_rule(entry.path, endpoint, handler, methods=[entry.method])
        return routes

    def _route(
        self, method: str, path: str, does: str, role: Role, more: dict[str, Any]
    ) -> Callable[[AnyView], AnyView]:
        def declared(view: AnyView) -> AnyView:
            if (answer := answer_of(view)) is not None:
                more["returns"] = answer
            self.entries.append(Route(self.name, method, self._root + path, does, role, view, **more))
            return view

        return declared


def _handler(entry: Route, context: AppContext) -> Callable[..., Awaitable[Response]]:
    if not entry.action:
        return partial(_run, entry, context, None)

    @audited(ADMIN, entry.action)
    async def noted(note: Note, /, **path: Any) -> Response:
        return await _run(entry, context, note, **path)

    return noted


async def _run(entry: Route, context: AppContext, note: Note | None, **path: Any) -> Response:
    by = api_key_auth.visitor(scope(), context.system)
    query, body = query_of(entry.query), None
    if entry.body is not None and entry.reads:
        body = _clean(body_of(entry.body, await json_object()), context)
    answer = await entry.view(AdminRequest(context, by, query, body, note), **path)
    if isinstance(answer, Response):
        return answer
    return responses.typed(answer) if isinstance(answer, Struct) else responses.json(answer)


def _clean(body: BaseModel, context: AppContext) -> BaseModel:
    """What people write beside an order is shown in many places: in none of them a key that slipped into it."""
    reason = getattr(body, "reason", None)
    if not isinstance(reason, str) or not reason:
        return body
    cleaned = api_key_auth.cleaner(scope()["headers"], context.system)(reason)
    return body if cleaned == reason else body.model_copy(update={"reason": cleaned})
