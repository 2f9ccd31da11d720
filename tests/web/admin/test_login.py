"""Logging in on the dashboard port: a form, a cookie that is worth what the key is worth, and nothing else."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from actors.kit.clock import Clock
from fleet.security.api_keys import StoredKey, digest_of, written
from fleet.security.roles import Role
from tests.kit.fleets.served import Served, served
from web.security.session_cookies import LIFE, LOGINS_PER_MINUTE

SECRETS = {role: f"{role}-key-0123456789" for role in ("client", "operator", "admin")}
KEYS: dict[str, Any] = {"keys": [{"name": role, "role": role, "key": key} for role, key in SECRETS.items()]}
HANDSHAKE = {
    "Connection": "upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def browser(fleet: Served, url: str = "", **fields: str) -> httpx.AsyncClient:
    """A client with a jar for cookies, which follows no redirect. `fields` go on every request."""
    accept = {"Accept": "text/html,*/*;q=0.8"}
    where = url or fleet.dashboard_url
    return httpx.AsyncClient(base_url=where, trust_env=False, timeout=20.0, headers={**accept, **fields}, verify=False)


def own(fleet: Served) -> dict[str, str]:
    """What a browser says of a form of the page itself."""
    return {"Origin": fleet.dashboard_url}


async def logged_in(client: httpx.AsyncClient, role: str, **fields: str) -> httpx.Response:
    answer = await client.post("/login", data={"key": SECRETS[role]}, headers=fields)
    assert answer.status_code == 303, answer.text
    return answer


@asynccontextmanager
async def feed(fleet: Served, fields: list[tuple[bytes, bytes]]) -> AsyncIterator[WebSocketConnection]:
    host = fleet.dashboard_url.partition("://")[2]
    stream = await trio.open_tcp_stream("127.0.0.1", int(host.partition(":")[2]))
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, host, "/ws", extra_headers=fields)
        nursery.cancel_scope.cancel()


async def until_closed(talk: WebSocketConnection) -> None:
    while True:
        await talk.get_message()


async def test_the_page_lets_one_in_and_out_again_without_scripts() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet, **own(fleet)) as client:
        page = (await client.get("/")).text
        assert "gpu-a" not in page
        assert re.search(r'<form method="post" action="login">.*type="password" name="key"', page)
        assert "http-equiv" not in page  # what is typed must not be taken away
        answer = await logged_in(client, "operator")
        assert (answer.headers["location"], answer.content) == ("./", b"")
        page = (await client.get("/")).text
        assert "gpu-a" in page
        assert "Logged in as operator (operator)." in page
        assert '<meta http-equiv="refresh"' in page
        assert (await client.get("/api/orchestrator/servers")).status_code == 200
        assert (await client.get("/health")).json()["orchestrator"]["circuitBreakers"] == {}
        kept = dict(client.cookies)
        assert (await client.post("/logout")).status_code == 303
        assert not client.cookies
        assert "gpu-a" not in (await client.get("/")).text
        client.cookies.update(kept)  # whoever has a copy of it
        assert "gpu-a" not in (await client.get("/")).text


async def test_the_cookie_says_nothing_of_the_key_and_no_script_reads_it() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        line = (await logged_in(client, "operator")).headers["set-cookie"]
        (crumb,) = SimpleCookie(line).values()
        assert (crumb["httponly"], crumb["samesite"], crumb["path"]) == (True, "Strict", "/")
        assert crumb["max-age"] == str(LIFE)
        assert not crumb["secure"]  # or a browser would not send it back over plain HTTP
        assert crumb["domain"] == ""
        for secret in (SECRETS["operator"], digest_of(SECRETS["operator"])):
            assert secret not in line
        over_tls = await logged_in(client, "operator", Origin=fleet.dashboard_url.replace("http:", "https:"))
        assert re.match(r"__Host-.*; Path=/;.*; Secure$", over_tls.headers["set-cookie"])


@pytest.mark.parametrize("role", SECRETS)
async def test_a_cookie_may_what_its_key_may(role: str) -> None:
    asked = {"client": ("GET", "/api/tags"), "operator": ("GET", "/api/orchestrator/queue")}
    asked["admin"] = ("GET", "/api/orchestrator/audit")
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        await logged_in(client, role)
        for needed, (method, path) in asked.items():
            answer = await client.request(method, path)
            assert answer.status_code == (200 if Role.of(role) >= Role.of(needed) else 403), path
        shows = "gpu-a" in (await client.get("/")).text
        assert shows == (role != "client")


async def test_it_admits_to_models_too_but_on_no_other_port() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        await logged_in(client, "client")
        body = {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": 2}}
        for path in ("/api/generate", "/api/generate--gpu-a"):
            assert (await client.post(path, json=body, headers=own(fleet))).status_code == 200
            assert (await client.post(path, json=body)).status_code == 403  # nothing says that it was our page
        for url in (fleet.system.membership.own_urls[0], fleet.system.membership.own_urls[1]):
            async with browser(fleet, url, **own(fleet)) as elsewhere:
                elsewhere.cookies.update(client.cookies)
                assert (await elsewhere.get("/api/tags")).status_code == 403
                assert (await elsewhere.post("/api/generate", json=body)).status_code == 403
                assert (await elsewhere.get("/login")).status_code in (401, 404)


FOREIGN = [
    {},
    {"Origin": "http://localhost:8080"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "none"},
]


ACTS = [
    ("POST", "/api/orchestrator/queue/pause"),
    ("PATCH", "/api/orchestrator/config/queue"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/pull"),
    ("POST", "/api/chat"),
]


async def test_no_other_page_acts_with_the_cookie() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        await logged_in(client, "admin")
        for method, path in ACTS:
            for fields in FOREIGN:
                answer = await client.request(method, path, content=b"{}", headers=fields)
                assert answer.status_code in (401, 403), (method, path, fields)
        assert fleet.system.scheduler.memory.paused is False


async def test_our_own_page_does() -> None:
    for fields in ({"Sec-Fetch-Site": "same-origin"}, None):
        async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
            await logged_in(client, "operator")
            answer = await client.post("/api/orchestrator/queue/pause", headers=fields or own(fleet))
            assert answer.status_code == 200
            assert fleet.system.scheduler.memory.paused is True
            audit = await fleet.system.journal.history(1)
            assert (audit[0]["who"], audit[0]["role"]) == ("operator", "operator")


async def test_no_other_page_logs_one_in_or_out() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        await logged_in(client, "operator")
        for fields in [each for each in FOREIGN if each]:
            for path in ("/login", "/logout"):
                answer = await client.post(path, data={"key": SECRETS["client"]}, headers=fields)
                assert answer.status_code == 403, (path, fields)
                assert "set-cookie" not in answer.headers
        assert "gpu-a" in (await client.get("/")).text


async def test_whatever_else_is_in_the_form_it_leads_to_our_own_page() -> None:
    extra = {"next": "https://evil.example/", "url": "//evil.example", "return_to": "\r\nX: y"}
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        answer = await client.post("/login?next=//evil.example", data={"key": SECRETS["admin"], **extra})
        assert answer.headers["location"] == "./"
        assert "evil" not in str(answer.headers)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 403),
        (b"key=", 403),
        (b"key=wrong-key-0123456789", 403),
        (b"key=%00%ff&key=x", 403),
        (b"key=" + b"a" * 5000, 403),
        (b"\xff", 400),
        (b"&".join(b"a=b" for _ in range(100)), 400),
        (b"key=" + b"%61" * 100_000, 413),
        (json.dumps({"key": SECRETS["admin"]}).encode(), 403),
    ],
)
async def test_what_is_no_key_lets_nobody_in(body: bytes, status: int) -> None:
    fields = {"Content-Type": "application/x-www-form-urlencoded"}
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        answer = await client.post("/login", content=body, headers=fields)
        assert answer.status_code == status
        assert "set-cookie" not in answer.headers


async def test_a_body_without_a_length_is_not_read() -> None:
    async def endless() -> Any:
        yield b"key="
        yield SECRETS["admin"].encode()

    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        assert (await client.post("/login", content=endless())).status_code == 413


async def test_guessing_is_slow_and_the_right_key_has_to_wait_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "nanoseconds", lambda _: (0, 0))  # however long the guesses take
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        codes = [(await client.post("/login", data={"key": "wrong-key"})).status_code for _ in range(LOGINS_PER_MINUTE)]
        assert set(codes) == {403}
        late = await client.post("/login", data={"key": SECRETS["admin"]})
        assert (late.status_code, late.headers["retry-after"]) == (429, "4")
        assert "set-cookie" not in late.headers


async def test_a_cookie_ends_with_its_key_and_follows_its_role(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    key = StoredKey("wall", Role.OPERATOR, digest_of("wall-key-0123456789"), "2026-01-01T00:00:00Z")

    async def write(fleet: Served, *keys: StoredKey) -> None:
        file.write_text(written(keys))
        file.chmod(0o600)
        await fleet.system.keys.refresh(str(file))

    file.write_text(written([key]))
    file.chmod(0o600)
    async with served("gpu-a", security={"keys_file": str(file)}) as fleet, browser(fleet) as client:
        assert (await client.post("/login", data={"key": "wall-key-0123456789"})).status_code == 303
        assert "gpu-a" in (await client.get("/")).text
        await write(fleet, StoredKey("wall", Role.CLIENT, key.sha256, key.created))
        assert "shown to operators" in (await client.get("/")).text
        await write(fleet, StoredKey("wall", Role.ADMIN, digest_of("another-key-0123456789"), key.created))
        assert "gpu-a" not in (await client.get("/")).text  # the same name is another key
        await write(fleet, key)
        assert "gpu-a" in (await client.get("/")).text
        await write(fleet, StoredKey("wall", Role.OPERATOR, key.sha256, key.created, revoked="2026-02-01T00:00:00Z"))
        assert "gpu-a" not in (await client.get("/")).text


async def test_the_live_feed_takes_the_cookie_of_our_page_and_lets_go_when_it_ends() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet, **own(fleet)) as client:
        await logged_in(client, "operator")
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items()).encode()
        for origin in ("http://localhost:8080", "null"):
            assert (await client.get("/ws", headers={**HANDSHAKE, "Origin": origin})).status_code in (401, 403)
        async with feed(fleet, [(b"Cookie", cookie), (b"Origin", fleet.dashboard_url.encode())]) as talk:
            assert "event" in json.loads(await talk.get_message())
            await client.post("/logout")
            with trio.fail_after(20), pytest.raises(ConnectionClosed):
                await until_closed(talk)
            assert talk.closed is not None
            assert talk.closed.code == 1008


async def test_the_log_names_who_came_in_and_never_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        await client.post("/login", data={"key": "wrong-key-0123456789"})
        await logged_in(client, "operator")
        await client.get("/")
        token = next(iter(client.cookies.values()))
        await client.post("/logout")
    told = [record for record in caplog.records if record.name == "fleet.login"]
    assert [record.message for record in told] == ["login refused", "logged in", "logged out"]
    assert [getattr(record, "by", None) for record in told] == [None, "operator", "operator"]
    everything = "\n".join(str(record.__dict__) for record in caplog.records if record.name.startswith("fleet"))
    for secret in (SECRETS["operator"], "wrong-key-0123456789", token):
        assert secret not in everything


async def test_without_keys_there_is_nothing_to_log_in_to() -> None:
    async with served("gpu-a") as fleet, browser(fleet) as client:
        page = (await client.get("/")).text
        assert "<form" not in page
        assert "Log in" not in page
        assert (await client.post("/login", data={"key": "some-key-0123456789"})).status_code == 403


async def test_a_page_that_loads_itself_has_a_link_instead_of_the_form() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        page = (await client.get("/?refresh=5")).text
        assert 'http-equiv="refresh" content="5"' in page
        assert "<form" not in page
        assert '<a href="login"' in page
        assert 'action="login"' in (await client.get("/login")).text
