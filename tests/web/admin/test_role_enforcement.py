"""Roles: one table for all routes, and every route of the app goes by it, whoever asks and by whichever lane."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from quart import Quart
from werkzeug.routing import Rule

from fleet.protocol.endpoints import ENDPOINTS, PINNABLE, known_methods
from fleet.security.roles import Role
from tests.kit.clients.lanes import UNIX, both_lanes
from tests.web.edge.raw import Answer, Served, served
from tests.web.fake_system import FakeSystem, fleet
from web.admin import role_enforcement
from web.admin.route_table import entries
from web.app import create_app
from web.http import responses
from web.process.private_listener import private_socket
from web.security import api_key_auth

KEYS = {role: f"the-key-of-a-{role.word}" for role in Role}
SECURITY: dict[str, Any] = {
    "keys": [{"name": f"my-{role.word}", "role": role.word, "key": KEYS[role]} for role in Role]
}
BAD_KEY = "nobodys-key-at-all"


def methods_of(rule: Rule) -> list[str]:
    return sorted(method for method in rule.methods or () if method != "OPTIONS")


def path_of(rule: Rule) -> str:
    """Some path that the rule matches."""
    return "".join("x" if dynamic else part for dynamic, part in rule._trace).partition("|")[2]


def app_of(system: FakeSystem) -> Quart:
    """The app with every view replaced: who gets to one is all that matters here."""
    app = create_app(system.handle)

    async def reached(**_: str) -> Any:
        return responses.json({"reached": True})

    for endpoint in app.view_functions:
        app.view_functions[endpoint] = reached
    return app


@asynccontextmanager
async def guarded(app: Quart) -> AsyncIterator[Served]:
    with private_socket(time.time()) as inner:
        async with served(app, [inner.bound], UNIX + inner.path, arriving=inner.arriving) as server:
            yield server


def routes_of(app: Quart) -> list[tuple[str, str, str]]:
    """Every method and rule of the app, with a path of it."""
    return [(method, rule.rule, path_of(rule)) for rule in app.url_map.iter_rules() for method in methods_of(rule)]


CALLERS: list[tuple[str, str | None, Role | None]] = [
    ("no key", None, None),
    ("bad key", BAD_KEY, None),
    *((role.word, KEYS[role], role) for role in Role),
]


def expected(method: str, rule: str, path: str, role: Role | None) -> str:
    """What may happen: the word in X-Fleet-Error, or `reached`."""
    needed = role_enforcement.needed(method, rule)
    assert needed is not None
    if api_key_auth.is_open(method, path) and needed is Role.CLIENT:
        return "reached"
    if role is None:
        native = path.startswith("/api/") and not path.startswith("/api/orchestrator")
        return "FORBIDDEN" if native else "UNAUTHORIZED"
    if method == "HEAD" and "HEAD" not in (known_methods(path) or ("HEAD",)):
        return "METHOD_NOT_ALLOWED"
    return "reached" if role >= needed else "ROLE_TOO_LOW"


def happened(answer: Answer) -> str:
    if "x-fleet-error" in answer:
        return str(answer["x-fleet-error"])
    return {200: "reached", 405: "METHOD_NOT_ALLOWED"}[answer.status]


async def test_the_walk_covers_the_whole_app() -> None:
    routes = {(method, rule) for method, rule, _ in routes_of(app_of(FakeSystem()))}
    assert len(routes) > 60
    assert {("POST", "/api/chat"), ("DELETE", "/api/delete"), ("GET", "/api/orchestrator/audit")} <= routes


@pytest.mark.parametrize(("caller", "key", "role"), CALLERS, ids=[caller for caller, _, _ in CALLERS])
async def test_every_route_lets_in_whom_the_table_says_and_nobody_else(
    caller: str, key: str | None, role: Role | None
) -> None:
    wrong: list[str] = []
    app = app_of(FakeSystem(security=SECURITY))
    async with guarded(app) as server:
        wire = await server.connect()
        for method, rule, path in routes_of(app):
            fields = [] if key is None else [f"X-API-Key: {key}"]
            found, allowed = happened(await wire.ask(method, path, b"", *fields)), expected(method, rule, path, role)
            if found != allowed:
                wrong.append(f"{method} {path}: {found}, not {allowed}")
    assert not wrong, "\n".join(wrong)


async def test_the_table_and_the_app_have_the_same_routes() -> None:
    every = routes_of(app_of(FakeSystem()))
    routed = {
        (method, rule)
        for method, rule, _ in every
        if not (method == "HEAD" and ("GET", rule) in role_enforcement.table())
    }
    assert routed == {
        each
        for each in role_enforcement.table()
        if not (each[0] == "HEAD" and ("GET", each[1]) in role_enforcement.table())
    }


def test_every_admin_route_has_the_role_its_entry_says() -> None:
    assert {(each.method, each.path): each.role for each in entries()}.items() <= role_enforcement.table().items()


def test_ollamas_changes_need_an_operator_and_its_other_routes_a_client() -> None:
    of_operators = {rule for (method, rule), role in role_enforcement.table().items() if role is Role.OPERATOR}
    changes = {rule for rule in of_operators if rule[:5] == "/api/" and not rule.startswith("/api/orchestrator")}
    assert changes == {
        "/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/<digest>",
    }  # fmt: skip


def test_whatever_the_hot_lane_serves_needs_no_more_than_a_client() -> None:
    for path in (*ENDPOINTS, *(f"{path}--<server>" for path in PINNABLE)):
        assert role_enforcement.needed("POST", path) is min(Role), path


HOT = [
    (None, 403),
    (BAD_KEY, 403),
    *((KEYS[role], 200) for role in Role),
]


@pytest.mark.parametrize(("key", "status"), HOT)
@both_lanes
async def test_both_lanes_let_the_same_callers_in(key: str | None, status: int) -> None:
    async with fleet(FakeSystem(security=SECURITY)) as server:
        for path in ENDPOINTS:
            wire = await server.connect()
            fields = [] if key is None else [f"Authorization: Bearer {key}"]
            answer = await wire.ask("POST", path, b'{"model":"m"}', *fields)
            refused = 401 if path.startswith("/v1/") else 403
            assert answer.status == (200 if status == 200 else refused), path


async def test_a_refusal_names_the_role_that_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="web.admin.role_enforcement")
    async with fleet(FakeSystem(security=SECURITY)) as server:
        wire = await server.connect()
        native = await wire.ask("POST", "/api/pull", b'{"model":"m"}', f"X-API-Key: {KEYS[Role.CLIENT]}")
        admin = await wire.ask("POST", "/api/orchestrator/servers/add", b"{}", f"X-API-Key: {KEYS[Role.OPERATOR]}")
    assert "operator" in json.dumps(json.loads(native.body))
    assert admin.status == 403
    assert json.loads(admin.body)["error"] == "this needs the role admin, and yours is operator"
    assert [(vars(line)["by"], vars(line)["status"]) for line in caplog.records] == [
        ("my-client", 403),
        ("my-operator", 403),
    ]
    assert KEYS[Role.CLIENT] not in caplog.text


async def test_a_route_that_is_in_no_table_is_refused(expected_errors: list[str]) -> None:
    expected_errors.append("GET /forgotten has no role")
    app = app_of(FakeSystem())

    @app.get("/forgotten")
    async def forgotten() -> Any:
        return responses.json({"reached": True})

    async with guarded(app) as server:
        answer = await (await server.connect()).ask("GET", "/forgotten")
    assert (answer.status, answer["x-fleet-error"]) == (403, "ROUTE_NOT_LISTED")


ANONYMOUS = [
    # configuration, role
    ({}, Role.ADMIN),
    ({"server": {"host": "::1"}}, Role.ADMIN),
    ({"server": {"host": "0.0.0.0"}, "security": {"allow_unauthenticated": True}}, Role.CLIENT),
    ({"server": {"host": "10.0.0.1"}, "security": {"api_keys": ["12345678"], "require_api_key": False}}, Role.CLIENT),
    ({"security": {"anonymous_role": "client"}}, Role.CLIENT),
    ({"server": {"trusted_proxies": ["127.0.0.1"]}}, Role.CLIENT),
    ({"security": {"anonymous_role": "operator"}, "server": {"host": "0.0.0.0"}}, Role.OPERATOR),
    ({"security": {"api_keys": ["12345678"], "anonymous_role": "admin"}}, Role.CLIENT),
]  # fmt: skip


@pytest.mark.parametrize(("config", "role"), ANONYMOUS)
async def test_without_a_key_one_is_an_admin_only_where_nobody_else_can_call(
    config: dict[str, Any], role: Role
) -> None:
    who = api_key_auth.identity([], FakeSystem(**config).handle)
    assert (who.name, who.role) == ("anonymous", role)


async def test_a_stranger_in_the_network_uses_models_and_changes_nothing() -> None:
    open_to_all: dict[str, Any] = {"server": {"host": "0.0.0.0"}, "security": {"allow_unauthenticated": True}}
    async with fleet(FakeSystem(**open_to_all)) as server:
        wire = await server.connect()
        assert (await wire.ask("POST", "/api/chat", b'{"model":"m"}')).status == 200
        for method, path in (("POST", "/api/pull"), ("GET", "/api/orchestrator/servers"),
                             ("DELETE", "/api/orchestrator/servers/a")):  # fmt: skip
            assert (await wire.ask(method, path, b"")).status == 403
        assert (await wire.ask("GET", "/api/orchestrator/health")).status == 200
