"""Keys on the wire: how one is shown, what is not taken for one, that nobody ever sees it again, and how it ends."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest

from fleet.protocol.call import Call
from fleet.protocol.headers import forwarded_headers, own_headers
from fleet.security.api_keys import StoredKey, digest_of, new_key, written
from fleet.security.roles import Role
from tests.kit.clients.lanes import both_lanes
from tests.web.fake_system import FakeSystem, fleet
from web.security import api_key_auth

KEY = new_key(b"k" * 32)
OTHER = new_key(b"o" * 32)
SECURITY: dict[str, Any] = {"keys": [{"name": "ci", "sha256": digest_of(KEY)}]}
ROUTES = [("POST", "/api/chat"), ("GET", "/api/tags"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models")]
BODY = b'{"model":"m"}'


def basic(key: str, user: str = "user") -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{key}'.encode()).decode()}"


def known_as(*fields: tuple[bytes, bytes], **config: Any) -> str:
    return api_key_auth.identity(fields, FakeSystem(**config).handle).name


@pytest.mark.parametrize(
    "field",
    [f"Authorization: Bearer {KEY}", f"authorization: bearer  {KEY}", f"X-API-Key: {KEY}", f"x-api-key: {KEY}",
     f"api-key: {KEY}", basic(KEY), basic(KEY, "anybody"), basic(KEY, "").replace("Basic", "bAsIc")],
)  # fmt: skip
@both_lanes
async def test_a_key_is_shown_in_a_field(field: str) -> None:
    async with fleet(FakeSystem(security=SECURITY)) as server:
        for method, path in ROUTES:
            assert (await (await server.connect()).ask(method, path, BODY, field)).status == 200, path


@pytest.mark.parametrize(
    "field",
    [f"Authorization: Basic {KEY}", basic("", KEY), basic(OTHER), basic(f"{KEY}x"), basic(f":{KEY}"), basic(KEY) + "!",
     f"Authorization: {KEY}", f"X-API-Key: {OTHER}", f"X-API-Key: {KEY}x",
     f"X-API-Key: Bearer {KEY}", f"Cookie: key={KEY}", f"X-Auth: {KEY}", f"X-API-Key: {digest_of(KEY)}"],
)  # fmt: skip
@both_lanes
async def test_nothing_else_is_a_key(field: str) -> None:
    async with fleet(FakeSystem(security=SECURITY)) as server:
        for method, path in ROUTES:
            assert (await (await server.connect()).ask(method, path, BODY, field)).status in (401, 403), path


QUERIES = [
    f"key={KEY}",
    f"api_key={KEY}",
    f"access_token={KEY}",
    f"token={KEY}",
    f"x-api-key={KEY}",
    f"Authorization=Bearer+{KEY}",
]


@pytest.mark.parametrize("query", QUERIES)
@both_lanes
async def test_a_key_in_the_query_opens_nothing_and_reaches_no_log(
    query: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with fleet(FakeSystem(security=SECURITY)) as server:
        for method, path in [*ROUTES, ("POST", "/api/pull"), ("GET", "/api/orchestrator/servers"), ("GET", "/nope")]:
            answer = await (await server.connect()).ask(method, f"{path}?{query}", BODY)
            assert answer.status in (401, 403), path
            assert KEY.encode() not in answer.body
    assert not [line for line in caplog.records if KEY in str(vars(line))]


@both_lanes
async def test_no_backend_and_no_log_sees_a_clients_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    admin = {"keys": [{"name": "root", "role": "admin", "sha256": digest_of(KEY)}]}
    system = FakeSystem(security=admin)
    async with fleet(system) as server:
        for field in (f"Authorization: Bearer {KEY}", f"X-API-Key: {KEY}", f"Api-Key: {KEY}"):
            for path in ("/api/chat", "/v1/messages", "/api/push", "/api/create", "/api/blobs/sha256:0"):
                answer = await (await server.connect()).ask("POST", f"{path}?api_key={KEY}&a=b", BODY, field)
                assert answer.status == 200
    calls = [*system.calls, *(call for _, call in system.relayed)]
    assert len(calls) == 15
    for call in calls:
        assert KEY.encode() not in sent(call)
        assert call.target.endswith("?a=b")
    assert not [line for line in caplog.records if KEY in str(vars(line))]


def sent(call: Call) -> bytes:
    """Everything of a request's head that a backend gets."""
    seen = call.passing or forwarded_headers(call.headers)
    own = own_headers(seen, api_key="", request_id=call.request_id)
    return b"\n".join([call.target.encode(), seen.lines, *(name + value for name, value in own)])


_PLAIN = "plain-key/of+the=file,0123"
_HASHED = "another-own:key~without.our.prefix"
_SHOWN: dict[str, Any] = {
    "keys": [{"name": "own", "role": "admin", "sha256": digest_of(_HASHED)}],
    "api_keys": [_PLAIN],
}
_HIDING = {
    "percent": lambda key: "".join(f"%{byte:02x}" for byte in key.encode()),
    "some percent": lambda key: "".join(f"%{byte:02X}" if n % 3 else chr(byte) for n, byte in enumerate(key.encode())),
    "twice": lambda key: "".join(f"%25{byte:02x}" for byte in key.encode()),
    "quoted": lambda key: quote(key, safe=""),
    "inside": lambda key: "x1" + quote(key, safe="") + "y2",
    "base64": lambda key: base64.b64encode(f"u:{key}".encode()).decode(),
    "base64 in percent": lambda key: quote(base64.b64encode(f"u:{key}".encode()).decode(), safe=""),
}
_PLACES = ["a={}", "b=1&a={}&c=2", "a=1;b={}", "{}=1", "{}", "%6bey={}", "A%70i-Key={}", "a=b%26key%3d{}"]


@pytest.mark.parametrize("how", _HIDING)
@pytest.mark.parametrize("key", [KEY, _PLAIN, _HASHED])
@both_lanes
async def test_a_key_reaches_no_backend_in_any_spelling(key: str, how: str) -> None:
    hidden = _HIDING[how](key)
    system = FakeSystem(security={**_SHOWN, "keys": [*_SHOWN["keys"], {"name": "ci", "sha256": digest_of(KEY)}]})
    fields = [
        f"Cookie: a=b; session={hidden}",
        f"X-Goog-Api-Key: {hidden}",
        f"X-Auth-Token: {hidden}",
        f"Proxy-Authorization: Bearer {hidden}",
        f"X-Custom: {hidden}",
        f"X-Custom-2: Basic {hidden}",
        f"User-Agent: tool/1 ({hidden})",
        "X-Kept: yes",
    ]
    async with fleet(system) as server:
        for path in ("/api/chat", "/v1/messages", "/api/embed"):
            for place in _PLACES:
                target = f"{path}?kept=1&{place.format(hidden)}"
                answer = await (await server.connect()).ask("POST", target, BODY, *fields, f"Api-Key: {key}")
                assert answer.status == 200
    assert len(system.calls) == 3 * len(_PLACES)
    for call in system.calls:
        wire = sent(call)
        assert b"x-kept: yes" in wire
        assert call.target.partition("?")[2] in ("kept=1", "kept=1&b=1&c=2")
        for reading in (wire, unquote_to_bytes(wire), unquote_to_bytes(unquote_to_bytes(wire))):
            assert key.encode() not in reading
            assert base64.b64encode(f"u:{key}".encode()) not in reading


@both_lanes
async def test_a_key_in_the_path_of_an_upload_is_refused() -> None:
    system = FakeSystem(security={"api_keys": [KEY]})
    async with fleet(system) as server:
        target = f"/api/blobs/sha256:0;key={KEY}"
        answer = await (await server.connect()).ask("POST", target, BODY, f"X-Api-Key: {KEY}")
        assert answer.status == 400
        assert KEY.encode() not in answer.body
    assert not system.relayed


@both_lanes
async def test_a_key_that_is_wrong_does_no_harm_where_none_is_needed() -> None:
    async with fleet(FakeSystem()) as server:  # clients of OpenAI's always send one
        for method, path in ROUTES:
            answer = await (await server.connect()).ask(method, path, BODY, "Authorization: Bearer ollama")
            assert answer.status == 200


@both_lanes
async def test_a_revoked_key_opens_nothing_on_a_connection_that_is_open_already(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    stored = StoredKey("ci", Role.CLIENT, digest_of(KEY))
    path.write_text(written([stored]))
    system = FakeSystem(security={"keys_file": str(path)})
    async with fleet(system) as server:
        wire = await server.connect()
        statuses = []
        for revoked in (None, "2026-01-01T00:00:00Z"):
            path.write_text(written([StoredKey("ci", Role.CLIENT, digest_of(KEY), revoked=revoked)]))
            await system.keys.refresh(str(path))
            for method, where in ROUTES[:2]:
                statuses.append((await wire.ask(method, where, BODY, f"X-API-Key: {KEY}")).status)
    assert statuses == [200, 200, 403, 403]


@both_lanes
async def test_a_key_that_was_refused_opens_everything_once_it_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    system = FakeSystem(security={"keys_file": str(path)})
    async with fleet(system) as server:
        wire = await server.connect()
        assert (await wire.ask("POST", "/api/chat", BODY, f"X-API-Key: {KEY}")).status == 403
        path.write_text(written([StoredKey("ci", Role.CLIENT, digest_of(KEY))]))
        await system.keys.refresh(str(path))
        assert (await wire.ask("POST", "/api/chat", BODY, f"X-API-Key: {KEY}")).status == 200


async def test_callers_are_known_by_the_names_of_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(written([StoredKey("filed", Role.OPERATOR, digest_of(OTHER))]))
    security = {"api_keys": ["12345678", "a-plain-key"], "keys_file": str(path), **SECURITY}
    names = {secret: known_as((b"x-api-key", secret.encode()), security=security)
             for secret in ("a-plain-key", KEY, OTHER, "wrong-key")}  # fmt: skip
    assert names == {"a-plain-key": "api_keys[1]", KEY: "ci", OTHER: "filed", "wrong-key": "anonymous"}
    both = [(b"authorization", f"Bearer {KEY}".encode()), (b"x-api-key", b"wrong-key")]
    assert known_as(*both, security=security) == "ci"


async def test_a_key_is_an_identity_even_where_none_is_needed() -> None:
    system = FakeSystem(security={**SECURITY, "require_api_key": False}).handle
    assert api_key_auth.identity([(b"x-api-key", KEY.encode())], system).name == "ci"
    assert api_key_auth.identity([(b"x-api-key", KEY.encode())], system).role is Role.CLIENT
    assert api_key_auth.identity([(b"x-api-key", b"wrong")], system).role is Role.ADMIN


async def test_health_tells_strangers_nothing_about_servers() -> None:
    async with fleet(FakeSystem(security=SECURITY)) as server:
        wire = await server.connect()
        for field in ([], [f"X-API-Key: {OTHER}"]):
            told = json.loads((await wire.ask("GET", "/health", b"", *field)).body)
            assert "http://" not in json.dumps(told)
