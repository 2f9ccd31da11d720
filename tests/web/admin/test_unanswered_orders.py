"""An order to an actor that does not answer: the same 503 in every route, and never a success."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.kit import reply
from actors.kit.mailbox import Mailbox
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Admin
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served

TINY = Pair(ServerId("a"), ModelName("tiny:latest"))
NEW_BAN = {"serverId": "a", "model": "tiny"}
ORDERS: list[tuple[str, str, object, str]] = [
    ("POST", "/servers/a/drain", {}, "server 'a'"),
    ("POST", "/servers/a/undrain", None, "server 'a'"),
    ("POST", "/servers/a/maintenance", {"enabled": True}, "server 'a'"),
    ("POST", "/bans", NEW_BAN, "the dispatcher"),
    ("DELETE", "/bans", None, "the dispatcher"),
    ("DELETE", "/bans/server/a", None, "the dispatcher"),
    ("DELETE", "/bans/model/tiny", None, "the dispatcher"),
    ("DELETE", "/bans/a/tiny", None, "the dispatcher"),
    ("POST", "/queue/pause", None, "the dispatcher"),
    ("POST", "/queue/resume", None, "the dispatcher"),
    ("POST", "/circuit-breakers/a/tiny/open", None, "a breaker"),
    ("POST", "/circuit-breakers/a/tiny/reset", None, "a breaker"),
    ("POST", "/circuit-breakers/a/reset", None, "a breaker"),
    ("POST", "/servers/a/models/tiny/recovery-test", None, "a breaker"),
]


@asynccontextmanager
async def deaf() -> AsyncIterator[Served]:
    """A fleet none of whose actors reads its mail."""
    async with served("a", models="tiny:latest:1GB") as fleet:
        await ask(fleet, "POST", "/circuit-breakers/a/tiny/half-open")
        system = fleet.system
        system.scheduler.mailbox = Mailbox("unread")
        system.servers[TINY.server].mailbox = Mailbox("unread")
        system.breakers._cells[TINY].mailbox = Mailbox("unread")
        yield fleet


@pytest.mark.parametrize(
    ("method", "path", "body", "whom"), ORDERS, ids=lambda part: part if isinstance(part, str) else ""
)
async def test_an_order_that_nobody_answers_is_a_503(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: object, whom: str
) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.05)
    async with deaf() as fleet:
        said = await ask(fleet, method, path, body, status=503)
        assert (said["code"], said["error"]) == ("SERVICE_UNAVAILABLE", f"no answer from {whom}")
        tests = path.endswith("recovery-test")
        maybe = "a test that is under way counts when it ends" if tests else "the order may still be carried out"
        assert said["details"] == maybe
        assert fleet.system.servers[TINY.server].state.admin is Admin.ACTIVE
