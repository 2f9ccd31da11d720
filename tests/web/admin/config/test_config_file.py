"""Saving the configuration to its file, and reloading it from there, by the admin API."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.config import ServerSpec, load
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import configured
from tests.kit.fleets.served import served
from tests.web.admin.config.config_requests import get, of_paths, patch, post, told


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Log levels are the process's, not the fleet's."""
    loggers = [logging.getLogger(name) for name in ("fleet", "actors", "web")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


# ---- save


async def test_saving_keeps_comments_and_mode_and_leaves_nothing_unsaved(tmp_path: Path) -> None:
    async with configured(tmp_path, "a", text="# mine\nqueue:\n  max_size: 5  # five\n") as here:
        here.path.chmod(0o640)
        await patch(here, "queue", maxSize=6)
        assert (await get(here))["unsaved"] == ["queue.max_size"]
        answer = await post(here, "/save")
        assert (answer["path"], answer["overridden"], answer["leftOut"]) == (str(here.path), [], [])
        assert "# mine\nqueue:\n  max_size: 6  # five\n" in here.path.read_text()
        assert stat.S_IMODE(here.path.stat().st_mode) == 0o640
        shown = await get(here)
        assert (shown["unsaved"], shown["sources"]["queue.max_size"]) == ([], "config.yml:8")
        assert os.listdir(tmp_path) == ["config.yml"]


async def test_a_new_file_is_the_owners_and_loads_as_the_same(tmp_path: Path) -> None:
    async with configured(tmp_path, "a", text="queue: {max_size: 5}\n") as here:
        await post(here, retry={"maxAttempts": 9}, servers=[{"id": "z", "url": "http://127.0.0.1:9"}])
        for name in ("other.yml", "other.json"):
            await post(here, "/save", configPath=name)
            path = tmp_path / name
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert load(path.read_text(), {}, {}, source=name).config == here.settings.config
        assert (await get(here))["unsaved"] != []  # that was not the file of the start


async def test_servers_of_the_api_are_saved_and_are_then_the_files(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        await ask(here, "POST", "/servers/add", {"id": "z", "url": "http://127.0.0.1:9"})
        assert (await get(here))["unsaved"] == ["servers.z"]
        await post(here, "/save")
        assert (await get(here))["unsaved"] == []
        assert set(here.system.membership.base) == {"a", "z"}
        answer = await post(here, "/reload")
        assert answer["changed"] == []


async def test_what_the_environment_overrides_is_told_when_saving(tmp_path: Path) -> None:
    async with configured(tmp_path, "a", env={"FLEET_QUEUE__MAX_SIZE": "5"}) as here:
        await patch(here, "queue", maxSize=6, ageingSeconds=9)
        answer = await post(here, "/save")
        assert answer["overridden"] == ["queue.max_size"]
        assert here.system.config.queue.max_size == 6
        assert (await get(here))["unsaved"] == ["queue.max_size"]
        await post(here, "/reload")
        assert (here.system.config.queue.max_size, here.system.config.queue.ageing_seconds) == (5, 9)


async def test_a_file_that_somebody_edited_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        await patch(here, "queue", maxSize=6)
        edited = here.path.read_text() + "retry: {max_attempts: 7}\n"
        here.path.write_text(edited)
        answer = await post(here, "/save", status=409)
        assert "has changed" in answer["error"]
        assert here.path.read_text() == edited


async def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        other = tmp_path / "compose.yml"
        other.write_text("services: {}\n")
        await post(here, "/save", status=409, configPath="compose.yml")
        assert other.read_text() == "services: {}\n"


# ---- reload


async def test_a_reload_takes_the_file_and_drops_what_the_api_changed_except_servers(tmp_path: Path) -> None:
    async with configured(tmp_path, "a", text="queue: {max_size: 5}\n") as here:
        await patch(here, "queue", maxSize=6)
        await patch(here, "retry", maxAttempts=9)
        await ask(here, "POST", "/servers/add", {"id": "z", "url": "http://127.0.0.1:9"})
        here.rewrite(here.path.read_text().replace("max_size: 5", "max_size: 7, ageing_seconds: 4"))
        answer = await post(here, "/reload")
        assert answer["message"] == "Configuration reloaded successfully"
        assert told(answer) == {
            "queue.max_size": (6, 7, "now"),
            "queue.ageing_seconds": (30.0, 4.0, "now"),
            "retry.max_attempts": (9, 3, "now"),
        }
        assert set(here.system.servers) == {"a", "z"}
        assert (await get(here))["unsaved"] == ["servers.z"]


@pytest.mark.parametrize("name", ["other.json", "other.yaml", "other.yml"])
async def test_another_file_beside_it_can_be_loaded(name: str, tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        ports = {"proxyPort": 0, "orchestratorPort": 0, "dashboardPort": 0, "metricsPort": 0}
        plain = {"queue": {"maxSize": 77}, "server": ports}
        (tmp_path / name).write_text(json.dumps(plain, indent="\t" if name.endswith("json") else 1))
        await post(here, "/reload", configPath=name)
        assert here.system.config.queue.max_size == 77
        assert here.system.config.servers == ()
        shown = await get(here)
        assert shown["source"].endswith(name)
        assert set(shown["unsaved"]) == {"queue.max_size", "servers.a"}
        await post(here, "/reload", configPath=str(here.path))
        assert here.system.config.queue.max_size == 1000


@pytest.mark.parametrize("route", ["reload", "save"])
async def test_only_files_of_the_directory_can_be_reached(route: str, tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (outside / "x.yml").write_text("queue: {max_size: 7}\n")
    (home / "link.yml").symlink_to(outside / "x.yml")
    (home / "sub").symlink_to(outside)
    (home / "data.db").write_text("")
    (home / "hidden.yml").symlink_to(home / "data.db")
    (home / "dir.yml").mkdir()
    os.mkfifo(home / "pipe.yml")
    async with configured(home, "a") as here:
        before = here.system.config
        for path in (
            *("../outside/x.yml", str(outside / "x.yml"), "link.yml", "sub/x.yml", "/etc/passwd", "data.db", ""),
            *("hidden.yml", "dir.yml", "pipe.yml", "x" * 300 + ".yml", "x\0.yml", "x\n.yml", "~/x.yml.yml" * 200),
        ):
            answer = await post(here, f"/{route}", status=400, configPath=path)
            assert answer["error"], path
        assert here.system.config is before
        assert (outside / "x.yml").read_text() == "queue: {max_size: 7}\n"
        missing = "sub2/none.yml"
        await post(here, f"/{route}", status=404 if route == "reload" else 400, configPath=missing)


async def test_a_file_that_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        (tmp_path / "big.yml").write_bytes(b"#" * (2**20 + 1))
        (tmp_path / "bad.yml").write_bytes(b"\xff\xfe")
        await post(here, "/reload", status=400, configPath="big.yml")
        await post(here, "/reload", status=400, configPath="bad.yml")
        await post(here, "/reload", status=404, configPath="none.yml")
        assert here.settings.trouble is None


async def test_another_directory_can_be_allowed_in_the_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.yml").write_text(
        "server: {proxy_port: 0, orchestrator_port: 0, dashboard_port: 0, metrics_port: 0}\nqueue: {max_size: 7}\n"
    )
    async with configured(tmp_path, "a", text=f"reload:\n  directory: {other}\n") as here:
        await post(here, "/reload", status=400, configPath=str(tmp_path / "config.yml"))
        await post(here, "/reload", configPath="x.yml")
        assert here.system.config.queue.max_size == 7
        assert here.system.config.reload.directory == str(other)  # as at the start


async def test_without_a_file_there_is_nothing_to_reload_or_save() -> None:
    async with served("a") as here:
        for route in ("reload", "save"):
            answer = await post(here, f"/{route}", status=400)
            assert answer["error"] == "No configuration file specified"
        assert (await get(here))["source"] == "defaults"


async def test_a_bad_file_is_refused_with_every_problem_and_seen_as_trouble_until_it_is_mended(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        good = here.path.read_text()
        here.rewrite(good + "queue: {max_size: -1, typo: 1}\n")
        answer = await post(here, "/reload", status=400)
        assert set(of_paths(answer)) == {"queue.max_size", "queue.typo"}
        assert all(each["source"].startswith("config.yml:") for each in answer["problems"])
        trouble = (await get(here))["trouble"]
        assert {each["path"] for each in trouble["problems"]} == {"queue.max_size", "queue.typo"}
        here.rewrite(good)
        await post(here, "/reload")
        assert (await get(here))["trouble"] is None


async def test_tls_files_are_looked_at_when_they_are_named_not_at_the_next_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pem")
    (tmp_path / "no.pem").write_text("nothing")
    async with configured(tmp_path, "a") as here:
        for certificate, key in (
            ("no.pem", "no.pem"),
            ("none.pem", "none.pem"),
            ("no.pem", "pipe.pem"),
            ("/dev/zero", "x"),
        ):
            tls = {"certificate": str(tmp_path / certificate), "key": str(tmp_path / key)}
            found = of_paths(await post(here, status=400, server={"tls": tls}))
            assert set(found) <= {"server.tls.certificate", "server.tls.key"}
        assert here.system.config is not None
        assert (await get(here))["needsRestart"] == []


async def test_a_server_that_joins_while_files_are_looked_at_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with configured(tmp_path, "a") as here:

        def meanwhile(tls: object) -> None:
            if len(here.system.servers) == 1:
                spec = ServerSpec(id=ServerId("z"), url="http://127.0.0.1:9")
                trio.from_thread.run_sync(here.system.add_server, spec)

        monkeypatch.setattr("actors.config.config_file.check_tls", meanwhile)
        answer = await post(here, server={"tls": {"certificate": "c.pem", "key": "k.pem"}}, retry={"maxAttempts": 2})
        assert set(told(answer)) == {"server.tls.certificate", "server.tls.key", "retry.max_attempts"}
        assert set(here.system.servers) == {"a", "z"}
        assert here.system.config.server.tls.enabled is False


async def test_what_was_loaded_from_another_file_can_be_saved_as_ours(tmp_path: Path) -> None:
    async with configured(
        tmp_path, "a", text="# ours\nqueue:\n  max_size: 5  # five\nretry: {max_attempts: 2}\n"
    ) as here:
        ports = "server: {proxy_port: 0, orchestrator_port: 0, dashboard_port: 0, metrics_port: 0}\n"
        (tmp_path / "other.yml").write_text(ports + "queue: {max_size: 9}\njobs: {total: 3}\n")
        await post(here, "/reload", configPath="other.yml")
        await patch(here, "jobs", keep=7)
        await post(here, "/save")
        text = here.path.read_text()
        assert "# ours\nqueue:\n  max_size: 9  # five\n" in text
        config = load(text, {}, {}, source="x").config
        assert (config.jobs.total, config.jobs.keep, config.retry.max_attempts) == (3, 7, 3)
        shown = await get(here)
        assert (shown["unsaved"], shown["source"]) == ([], "config.yml")


async def test_the_audit_log_says_what_was_changed_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleet.admin")
    async with configured(tmp_path, "a") as here:
        here.system.journal.attached = True
        await patch(here, "security", apiKeys=["s3cret-key-1"], requireApiKey=False)
        await ask(here, "PATCH", "/config/queue?dry_run=true", {"maxSize": 3})
        first, second = list(here.system.journal.lines)
        assert first["before"]["security.api_keys"] == []
        assert "security.require_api_key" in first["after"]
        assert "s3cret" not in json.dumps([first, second])
        assert "before" not in second
        here.system.journal.attached = False
    assert "s3cret" not in caplog.text
