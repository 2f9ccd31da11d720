"""URLs that nobody can use, at every door: refused with the field and the fix, nothing kept; the next start works."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from actors.storage.journal import Document
from actors.storage.store_location import keeping
from actors.system import open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import configured
from tests.kit.fleets.served import Served, front_end, served
from web.cli import main

BAD = [
    "http://10.0.0.256:11434",
    "http://192.168.1.300",
    "http://010.0.0.5:11434",
    "http://[::1]11434",
    "http://[v1.x]",
    "http://xn--a",
    "http://" + "l" * 64 + ":11434",
    "http://[::1%25" + "z" * 70 + "]",
    "http://a:+80",
    "http://a:65536",
    "http://a:0",
    "http://a:٨٠",
    "http://u:hunter2@a",
    "http://a..b",
    "http://a\\b",
    "http://a b",
    "http://a%41",
    "http://a/../b",
    "http://ä",
    "http://a\n",
]
PORTS = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}


def named(url: str) -> str:
    return url[:24].encode("unicode_escape").decode()


def plain(name: str, url: str) -> Document:
    return {"id": name, "url": url, "max_concurrency": 4, "priority": 1, "tags": []}


def config(folder: Path, *servers: dict[str, Any]) -> Config:
    store = {"url": f"sqlite:///{folder}/fleet.db"}
    return Config.model_validate({"server": PORTS, "servers": list(servers), "store": store})


@asynccontextmanager
async def kept(settings: Config) -> AsyncIterator[Served]:
    """A product with a store on disk; what is there at the end is written."""
    async with (
        keeping(settings, "", time.time) as journal,
        open_system(settings, journal=journal) as system,
        front_end(settings, system, {}) as handle,
    ):
        yield handle


async def test_no_door_of_the_api_takes_one_and_everything_else_goes_on(tmp_path: Path) -> None:
    settings = config(tmp_path, {"id": "a", "url": "http://127.0.0.1:9"})
    async with kept(settings) as here:
        for url in BAD:
            for method, path, body in (
                ("POST", "/servers/add", {"id": "x", "url": url}),
                ("PATCH", "/servers/a", {"url": url}),
                ("POST", "/config", {"servers": [{"id": "a", "url": url}]}),
                ("POST", "/config?dry_run=true", {"servers": [{"id": "x", "url": url}]}),
            ):
                said = json.dumps(await ask(here, method, path, body, status=400))
                assert "url" in said, (method, path, url)
                assert "hunter2" not in said
        await ask(here, "PATCH", "/servers/a", {"priority": 5})  # later changes go on as ever
        assert [server.id for server in here.system.config.servers] == [ServerId("a")]
    async with kept(settings) as here:
        found = await ask(here, "GET", "/servers")
        assert [(server["id"], server["priority"]) for server in found["servers"]] == [("a", 5)]
        assert found["setAside"] == []


def fleet(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main.app, arguments, env=environment)


@pytest.mark.parametrize("url", BAD, ids=named)
def test_the_file_and_the_environment_end_with_the_path_of_the_field_and_no_traceback(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yml").write_text(json.dumps({"servers": [{"id": "ok", "url": "http://ok"}, {"id": "x", "url": url}]}))
    for command in ("check", "serve"):
        ended = fleet(command)
        assert (ended.exit_code, "servers.1.url" in ended.output) == (2, True), ended.output
        assert "Traceback" not in ended.output
    Path("config.yml").unlink()
    if url.split() == [url]:  # else it is a list of two
        ended = fleet("check", FLEET_SERVERS=f"http://ok,{url}")
        assert (ended.exit_code, "servers.1.url" in ended.output) == (2, True), ended.output


async def write(folder: Path, **documents: Document) -> None:
    """A store as an earlier version has left it."""
    settings = config(folder)
    async with keeping(settings, "", time.time) as journal:
        journal.keep("server", lambda key: {"spec": documents[key], "base": None})
        for name in documents:
            journal.touch("server", name)


async def health(system: Served) -> tuple[str, str]:
    found = await ask(system, "GET", "/health")
    texts = [each["text"] for each in found["reasons"] if each["code"] == "server_set_aside"]
    return found["status"], "; ".join(texts)


async def test_a_store_that_was_poisoned_before_starts_and_says_what_to_do(tmp_path: Path) -> None:
    bad = {f"bad{number}": plain(f"bad{number}", url) for number, url in enumerate(BAD)}
    await write(tmp_path, **bad, good=plain("good", "http://127.0.0.1:9"))
    async with kept(config(tmp_path)) as here:
        assert set(here.system.servers) == {ServerId("good")}
        text = (await health(here))[1]
        for name in bad:
            assert f"server '{name}'" in text
            assert f"DELETE /api/orchestrator/servers/{name}" in text
        assert "url: needs a valid host" in text
        assert "hunter2" not in text
        assert {each["id"] for each in (await ask(here, "GET", "/servers"))["setAside"]} == set(bad)
        async with here.client() as client:
            people = (await client.get("/health")).json()
        assert "server_set_aside" in {each["code"] for each in people["reasons"]}
        await ask(here, "PATCH", "/servers/good", {"priority": 2})
        await ask(here, "POST", "/config", {"queue": {"maxSize": 7}})
    async with kept(config(tmp_path)) as here:  # what is set aside is still there
        for name in bad:
            assert f"server '{name}'" in (await health(here))[1]
            await ask(here, "DELETE", f"/servers/{name}")
            await ask(here, "DELETE", f"/servers/{name}", status=404)
        assert (await health(here))[1] == ""
    async with kept(config(tmp_path)) as here:
        assert (await ask(here, "GET", "/servers"))["setAside"] == []
        assert (await health(here))[1] == ""


async def test_a_server_that_was_set_aside_is_mended_by_adding_it_anew(tmp_path: Path) -> None:
    await write(tmp_path, bad=plain("bad", BAD[0]))
    async with served("a") as others, kept(config(tmp_path)) as here:
        await ask(here, "POST", "/servers/add", {"id": "bad", "url": others.sims["a"].url})
        assert await health(here) == ("healthy", "")
    async with kept(config(tmp_path)) as here:
        assert set(here.system.servers) == {ServerId("bad")}


async def test_the_fleet_is_degraded_by_it_and_strangers_learn_no_names(tmp_path: Path) -> None:
    await write(tmp_path, bad=plain("bad", BAD[0]))
    async with served("a") as others:
        settings = config(tmp_path, {"id": "a", "url": others.sims["a"].url})
        keys = {"api_keys": ["a-key-of-mine"]}
        settings = Config.model_validate({**settings.model_dump(exclude={"security"}), "security": keys})
        async with kept(settings) as here:
            await here.system.probe(ServerId("a"), 5.0)
            async with here.client() as client:
                stranger = (await client.get("/health")).json()
                owner = (await client.get("/health", headers={"Authorization": "Bearer a-key-of-mine"})).json()
        assert (stranger["status"], owner["status"]) == ("degraded", "degraded")
        assert "bad" not in json.dumps(stranger)
        assert "'bad'" in json.dumps(owner)


async def test_what_was_kept_over_an_entry_of_the_file_and_cannot_be_used_leaves_the_file_s(tmp_path: Path) -> None:
    entry = {"id": "a", "url": "http://127.0.0.1:9"}
    settings = config(tmp_path, entry)
    async with kept(settings) as here:
        await ask(here, "PATCH", "/servers/a", {"priority": 9})
    async with keeping(settings, "", time.time) as journal:
        document = dict(journal.stored["server"]["a"])
        document["spec"] = {**document["spec"], "url": BAD[0]}
        journal.keep("server", lambda key: document)
        journal.touch("server", "a")
    async with kept(settings) as here:
        assert here.system.config.servers[0].priority == 1
        assert "server 'a'" in (await health(here))[1]
        await ask(here, "PATCH", "/servers/a", {"priority": 3})  # what is said now is newer
        assert (await health(here))[1] == ""
    async with kept(settings) as here:
        assert here.system.config.servers[0].priority == 3


async def test_a_reload_of_a_file_with_one_changes_nothing_and_names_the_line(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        good, before = here.path.read_text(), here.system.config
        for url in BAD[:6]:
            here.rewrite(f"{good}  - {{id: x, url: '{url}'}}\n")
            found = await ask(here, "POST", "/config/reload", {}, status=400)
            [problem] = found["problems"]
            assert (problem["path"], problem["source"][:11]) == ("servers.1.url", "config.yml:")
        assert here.system.config is before
        assert set(here.system.servers) == {ServerId("a")}


def test_a_url_that_ends_in_a_route_of_ollama_is_hinted_at_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yml").write_text("servers: [{id: a, url: 'http://a:1'}, {id: b, url: 'http://b:1/v1'}]")
    ended = fleet("check")
    assert ended.exit_code == 0
    [line] = [line for line in ended.output.splitlines() if line.startswith("hint: ")]
    assert line.startswith("hint: servers.1.url: ends in /v1, which is where Ollama's routes begin: leave it out")
