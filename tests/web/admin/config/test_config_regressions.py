"""What once went wrong when the fleet was configured by REST."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.security import key_file
from fleet.common.ids import ServerId
from fleet.config import Config, ConfigError, load
from fleet.security.api_keys import StoredKey, digest_of, written
from fleet.security.roles import Role
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import configured
from tests.kit.fleets.served import served
from tests.web.fake_system import FakeSystem, fleet

SHOWN = ("**********", "***REDACTED***")
"""What answers show instead of a key."""


class Names(trio.abc.HostnameResolver):
    """A name server that knows one name, which leads to where a cloud hands out credentials."""

    async def getaddrinfo(self, host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host == b"innocent.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port or 0))]
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def getnameinfo(self, sockaddr: Any, flags: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
async def names() -> AsyncIterator[None]:
    before = trio.socket.set_custom_hostname_resolver(Names())
    yield
    trio.socket.set_custom_hostname_resolver(before)


async def test_servers_that_came_as_configuration_were_not_looked_up(names: None) -> None:
    async with served("a") as here:
        servers = [{"id": "x", "url": "http://new.example:1"}, {"id": "y", "url": "http://innocent.example:80"}]
        answer = await ask(here, "POST", "/config", {"servers": servers}, status=400)
        assert [each["path"] for each in answer["problems"]] == ["servers.1.url"]
        assert "credentials" in answer["problems"][0]["message"]
        assert list(here.system.servers) == ["a"]
        await ask(here, "POST", "/config", {"servers": servers[:1]})  # it may come later
        assert "x" in here.system.servers


@pytest.mark.parametrize(
    "body",
    [
        {"security": {"keys": [{"name": "chat", "role": "client", "key": "a-client-key"}]}},
        {"security": {"anonymousRole": "client"}},
        {"security": {"keysFile": "/nowhere/keys.jsonl"}},
        {"server": {"trustedProxies": ["10.0.0.1"]}},
    ],
)
async def test_a_change_could_leave_nobody_who_may_change_it_back(body: dict[str, Any], tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        for dry in ("true", "false"):
            answer = await ask(here, "POST", f"/config?dry_run={dry}", body, status=400)
            assert "no admin" in answer["error"]
        keys = [{"name": "me", "role": "admin", "key": "an-admin-key"}, *body.get("security", {}).get("keys", [])]
        body["security"] = body.get("security", {}) | {"keys": keys}
        await ask(here, "POST", "/config", body)  # with an admin it is fine
        await ask(here, "GET", "/config", headers={"x-api-key": "an-admin-key"})


async def test_a_million_values_were_a_million_problems(caplog: pytest.LogCaptureFixture) -> None:
    async with served("a") as here, here.client() as client:
        for body in (b'{"servers": [' + b"1," * 60_000 + b"1]}", b'{"logging": "' + b"x" * 2**20 + b'"}'):
            answer = await client.post("/api/orchestrator/config", content=body)
            assert answer.status_code == 413
            assert answer.json()["success"] is False
        answer = await client.post("/api/orchestrator/config", content=b'{"servers": [' + b"1," * 40_000 + b"1]}")
        assert answer.status_code == 400
        assert "at most 1000" in answer.json()["error"]
        assert len(answer.content) < 100_000
        many = b'{"servers": [' + b"1," * 6_000 + b"1]}"
        assert (await client.post("/api/orchestrator/models/tiny/warmup", content=many)).status_code == 413


def test_problems_are_counted_and_the_first_of_them_told() -> None:
    tags = ", ".join("''" for _ in range(64))
    servers = ", ".join(f"{{id: s{at}, url: 'http://h:{at + 1}', tags: [{tags}]}}" for at in range(100))
    with pytest.raises(ConfigError) as caught:
        load(f"servers: [{servers}]", {}, {}, source="f.yml")
    assert caught.value.message.startswith("configuration, 6400 problems: ")
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1].message == "6300 more problems"


async def test_the_event_loop_read_a_file_of_keys_that_was_named_by_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[int] = []
    real = key_file.KeyFile.read

    def look(self: key_file.KeyFile) -> Any:
        readers.append(threading.get_ident())
        return real(self)

    path = tmp_path / "keys.jsonl"
    path.write_text(written([StoredKey("me", Role.ADMIN, digest_of("an-admin-key"))]))
    async with configured(tmp_path, "a") as here:
        monkeypatch.setattr(key_file.KeyFile, "read", look)
        await ask(here, "PATCH", "/config/security", {"keysFile": str(path)})
        await ask(here, "GET", "/config", headers={"x-api-key": "an-admin-key"})
        assert readers
        assert threading.get_ident() not in readers


async def test_the_key_of_a_server_could_be_sent_to_another_machine() -> None:
    async with served("a") as here:
        await ask(here, "PATCH", "/servers/a", {"apiKey": "s3cret-of-a"})
        url = here.system.cell(ServerId("a")).state.spec.url
        assert (await ask(here, "GET", "/servers/a"))["server"]["apiKey"] in SHOWN
        for body in ({"url": "http://127.0.0.1:9"}, *({"url": "http://127.0.0.1:9", "apiKey": each} for each in SHOWN)):
            answer = await ask(here, "PATCH", "/servers/a", body, status=400)
            assert "apiKey" in answer["error"]
        assert here.system.cell(ServerId("a")).state.spec.url == url
        await ask(here, "PATCH", "/servers/a", {"url": f"{url}/"})  # the same machine
        await ask(here, "PATCH", "/servers/a", {"url": "http://127.0.0.1:9", "apiKey": None})


@pytest.mark.parametrize("shown", SHOWN)
async def test_a_redacted_key_that_was_sent_back_took_the_place_of_the_key(shown: str) -> None:
    async with served("a") as here:
        await ask(here, "PATCH", "/servers/a", {"apiKey": "s3cret-of-a"})
        await ask(here, "PATCH", "/servers/a", {"apiKey": shown, "priority": 7})
        servers = [{"id": "a", "url": here.system.cell(ServerId("a")).state.spec.url, "priority": 7, "apiKey": shown}]
        await ask(here, "POST", "/config", {"servers": servers})
        spec = here.system.cell(ServerId("a")).state.spec
        assert spec.priority == 7
        assert spec.api_key is not None
        assert spec.api_key.get_secret_value() == "s3cret-of-a"
        await ask(here, "PATCH", "/servers/a", {"apiKey": shown})
        added = {"id": "b", "url": "http://127.0.0.1:9", "apiKey": shown}
        assert "redacted" in (await ask(here, "POST", "/servers/add", added, status=400))["error"]


@pytest.mark.parametrize("rule", ["*", "http://*", "HTTPS://*", "https://*:8443"])
async def test_all_pages_of_one_scheme_could_administer_a_fleet_without_keys(rule: str) -> None:
    system = FakeSystem()
    system.config = Config.model_validate({"cors": {"origins": [rule, "https://admin.example"]}})
    async with fleet(system) as server:
        for origin in ("http://evil.example", "https://evil.example", "https://evil.example:8443"):
            fields = [f"Origin: {origin}"]
            answer = await (await server.connect()).ask("DELETE", "/api/orchestrator/servers/a", b"", *fields)
            assert answer.status == 403
        fields = ["Origin: https://admin.example"]
        assert (await (await server.connect()).ask("DELETE", "/api/orchestrator/nowhere", b"", *fields)).status == 404


async def test_a_limit_on_header_fields_could_keep_everybody_out_who_might_take_it_back() -> None:
    async with served("a") as here:
        answer = await ask(here, "PATCH", "/config/limits", {"headers": 1}, status=400)
        assert answer["problems"][0]["path"] == "limits.headers"
        await ask(here, "PATCH", "/config/limits", {"headers": 16})
        await ask(here, "PATCH", "/config/limits", {"headers": 100})


async def test_a_dry_run_in_the_api_s_own_spelling_changed_the_fleet() -> None:
    async with served("a") as here:
        answer = await ask(here, "PATCH", "/config/queue?dryRun=true", {"maxSize": 3})
        assert answer["dryRun"] is True
        assert here.system.config.queue.max_size == 1000
