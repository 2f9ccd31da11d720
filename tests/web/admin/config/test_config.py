"""The configuration by REST: look, change, reload, save, on a running product that was started with a file."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.config import ServerSpec, load
from fleet.config.live.restart_keys import KEYS
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import configured
from tests.kit.fleets.served import served

STARS = "**********"


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Log levels are the process's, not the fleet's."""
    loggers = [logging.getLogger(name) for name in ("fleet", "actors", "web")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


async def get(here: Any, path: str = "") -> Any:
    return await ask(here, "GET", f"/config{path}")


async def post(here: Any, path: str = "", status: int = 200, **body: Any) -> Any:
    return await ask(here, "POST", f"/config{path}", body, status=status)


async def patch(here: Any, section: str, status: int = 200, **body: Any) -> Any:
    return await ask(here, "PATCH", f"/config/{section}", body, status=status)


def told(answer: Any) -> dict[str, tuple[Any, Any, str]]:
    return {each["path"]: (each["before"], each["after"], each["effect"]) for each in answer["changed"]}


def of_paths(answer: Any) -> dict[str, str]:
    return {each["path"]: each["message"] for each in answer["problems"]}


# ---- look


async def test_the_configuration_is_shown_as_the_reference_has_it(tmp_path: Path) -> None:
    env = {"FLEET_RETRY__MAX_ATTEMPTS": "2", "A_KEY": "s3cret-value"}
    text = "circuitBreaker:\n  openTimeout: 90000\nsecurity:\n  keys: []\n"
    async with configured(tmp_path, "a", text=text, env=env) as here:
        answer = await get(here)
        config = answer["config"]
        assert {"port", "enableQueue", "enableCircuitBreaker", "circuitBreaker"} <= set(config)
        seed = "baseFailureThreshold openTimeout halfOpenTimeout halfOpenMaxRequests recoverySuccessThreshold"
        assert {*seed.split(), "activeTestTimeout", "errorRateThreshold"} <= set(config["circuitBreaker"])
        assert config["circuitBreaker"]["openTimeout"] == 90000
        assert (answer["source"], answer["unsaved"], answer["needsRestart"]) == ("config.yml", [], [])
        assert answer["trouble"] is None
        sources = answer["sources"]
        assert set(KEYS) - {"servers"} | {"servers.a"} == set(sources)
        assert sources["circuit_breaker.open_timeout"] == "config.yml:7"
        assert sources["retry.max_attempts"] == "environment FLEET_RETRY__MAX_ATTEMPTS"
        assert sources["queue.max_size"] == "default"
        assert sources["servers.a"].startswith("config.yml:")


async def test_no_answer_holds_a_secret(tmp_path: Path) -> None:
    env = {"MY_KEY": "s3cret-mine"}
    text = 'security:\n  api_keys: ["env:MY_KEY", "s3cret-plain"]\n  require_api_key: false\n'
    async with configured(tmp_path, "a", text=text, env=env) as here, here.client() as client:
        server = {"id": "z", "url": "http://127.0.0.1:9", "apiKey": "s3cret-of-z"}
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {"servers": [server]}),
            ("POST", "", {"security": {"apiKeys": [STARS, "s3cret-new!", "x"]}}),
            ("PATCH", "/security", {"apiKeys": [STARS, "s3cret-new!"]}),
            ("POST", "/save", {}),
            ("POST", "/reload", {}),
        ):
            answer = await client.request(method, f"/api/orchestrator/config{path}", json=body)
            assert answer.status_code in (200, 400)
            assert "s3cret" not in answer.text, path
        saved = here.path.read_text()
        assert "s3cret-mine" not in saved
        assert "env:MY_KEY" in saved
        assert "s3cret-of-z" in saved


async def test_the_schema_comes_from_the_model_and_fits_what_is_shown() -> None:
    import jsonschema

    async with served("a") as here:
        schema = (await get(here, "/schema"))["schema"]
        assert set(schema["properties"]) == set((await get(here))["config"])
        jsonschema.validate({"port": 5101, "queue": {"maxSize": 3}}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"queue": {"maxSize": -1}}, schema)


# ---- change


async def test_the_references_own_example_is_accepted_and_says_what_waits_for_a_restart(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        answer = await post(here, port=5101, enableCircuitBreaker=False)
        assert answer["message"] == "Configuration updated successfully"
        assert told(answer) == {
            "port": (0, 5101, "restart"),
            "server.orchestrator_port": (0, 5101, "restart"),
            "enable_circuit_breaker": (True, False, "now"),
        }
        assert answer["needsRestart"] == ["port", "server.orchestrator_port"]
        assert answer["config"]["port"] == 5101
        assert here.system.config.port == 0  # what runs
        assert here.system.config.enable_circuit_breaker is False
        shown = await get(here)
        assert (shown["config"]["port"], shown["needsRestart"]) == (5101, ["port", "server.orchestrator_port"])
        assert set(shown["unsaved"]) == set(told(answer))
        assert shown["sources"]["enable_circuit_breaker"] == shown["sources"]["port"] == "admin API"
        again = await post(here, port=5101, enableCircuitBreaker=False)
        assert again["changed"] == []
        back = await post(here, port=0)
        assert back["needsRestart"] == []


@pytest.mark.parametrize("name", ["loadBalancer", "load_balancer"])
async def test_a_section_is_patched_key_by_key(name: str) -> None:
    async with served("a") as here:
        before = here.system.config
        answer = await patch(here, name, weights={"latency": 0.9}, policy="round-robin")
        assert (answer["section"], answer["message"]) == (name, f"Configuration section '{name}' updated successfully")
        now = here.system.config
        assert now is not before
        assert now.load_balancer.weights == before.load_balancer.weights.model_copy(update={"latency": 0.9})
        assert now.load_balancer.policy == "round_robin"
        assert now.model_copy(update={"load_balancer": before.load_balancer}) == before


async def test_every_section_can_be_patched_and_no_other_name() -> None:
    async with served("a") as here:
        shown = (await get(here))["config"]
        sections = [name for name, value in shown.items() if isinstance(value, dict)]
        assert len(sections) >= 15
        for name in sections:
            assert (await patch(here, name))["changed"] == []
        for name in ("nope", "servers", "port", "queue.maxSize"):
            answer = await patch(here, name, status=400)
            assert answer["error"] == "Invalid configuration section"
            assert sorted(answer["validSections"]) == sorted(sections)


async def test_a_change_is_checked_as_a_whole_and_every_problem_told_by_path() -> None:
    async with served("a") as here:
        before = here.system.config
        answer = await post(
            here,
            status=400,
            port=99999,
            enableQueue=False,
            queue={"maxSize": -1, "typo": 1},
            retry={"maxAttempts": "soon"},
        )
        assert set(of_paths(answer)) == {"port", "queue.max_size", "queue.typo", "retry.max_attempts"}
        assert all(each["source"] == "admin API" for each in answer["problems"])
        assert all(path in answer["details"] for path in of_paths(answer))
        assert here.system.config is before
        assert (await get(here))["unsaved"] == []


async def test_a_dry_run_tells_everything_and_changes_nothing(tmp_path: Path) -> None:
    async with configured(tmp_path, "a") as here:
        before = here.system.config
        here.path.write_text(here.path.read_text() + "retry:\n  max_attempts: 7\n")
        for method, path, body in (
            ("POST", "/config?dry_run=true", {"queue": {"maxSize": 3}, "servers": []}),
            ("PATCH", "/config/queue?dry_run=true", {"maxSize": 3}),
            ("POST", "/config/reload?dry_run=true", {}),
        ):
            answer = await ask(here, method, path, body)
            assert answer["dryRun"] is True
            assert told(answer)
            assert here.system.config is before
            assert (await get(here))["unsaved"] == []
        assert "a" in here.system.servers


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"server": {"host": "0.0.0.0"}}, "server.host"),
        ({"reload": {"directory": "/"}}, "reload.directory"),
        ({"placement": {"builder": "nobody"}}, "placement.builder"),
        ({"servers": [{"id": "x", "url": "OWN"}]}, "servers.0.url"),
        ({"servers": [{"id": "x", "url": "http://h:1"}, {"id": "y", "url": "http://H:1/"}]}, "servers.1.url"),
        ({"security": {"requireApiKey": True}}, "security.require_api_key"),
        ({"servers": [{"id": "x", "url": "http://169.254.169.254"}]}, "servers.0.url"),
    ],
)
async def test_what_would_harm_the_fleet_is_refused(body: dict[str, Any], path: str) -> None:
    async with served("a") as here:
        text = json.dumps(body).replace("OWN", here.system.membership.own_urls[0])
        assert list(of_paths(await post(here, status=400, **json.loads(text)))) == [path]
        assert list(here.system.servers) == ["a"]


async def test_servers_can_be_replaced_and_the_fleet_follows() -> None:
    async with served("a", "b") as here:
        b = next(each for each in (await get(here))["config"]["servers"] if each["id"] == "b")
        answer = await post(here, servers=[{**b, "maxConcurrency": 9}])
        assert set(told(answer)) == {"servers.a", "servers.b.max_concurrency"}
        assert [spec.id for spec in here.system.config.servers] == ["b"]
        assert here.system.cell(ServerId("b")).state.ledger.capacity == 9
        with trio.fail_after(20):
            while ServerId("a") in here.system.servers:
                await trio.sleep(0.01)
        assert (await get(here))["sources"]["servers.b"] == "admin API"


async def test_changes_at_one_time_come_one_after_the_other() -> None:
    async with served("a") as here:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(_patch_one, here, number)
        assert here.system.config.jobs.total == 1
        weights = here.system.config.load_balancer.weights
        assert weights.latency == weights.load == weights.capacity == 9.0


async def _patch_one(here: Any, number: int) -> None:
    name = ("latency", "load", "capacity", "residency")[number % 4]
    await patch(here, "loadBalancer", weights={name: 9.0})
    await patch(here, "jobs", total=1)


async def test_the_log_level_follows() -> None:
    async with served("a") as here:
        await patch(here, "logging", level="warn")
        assert logging.getLogger("fleet").level == logging.WARNING
        assert logging.getLogger("web").level == logging.WARNING
        await patch(here, "logging", level="DEBUG")
        assert logging.getLogger("fleet").level == logging.DEBUG


async def test_new_keys_and_origins_hold_for_the_next_request() -> None:
    async with served("a") as here, here.client() as client:
        origin = {"origin": "https://chat.example"}
        assert "access-control-allow-origin" not in (await client.get("/api/tags", headers=origin)).headers
        await patch(here, "cors", origins=["https://chat.example"])
        answer = await client.get("/api/tags", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        await patch(here, "security", apiKeys=["a-new-key-1"])
        assert (await client.get("/api/tags")).status_code == 403
        key = {"authorization": "Bearer a-new-key-1"}
        assert (await client.get("/api/tags", headers=key)).status_code == 200
        chat = {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": 1}}
        assert (await client.post("/api/generate", json=chat)).status_code == 403
        assert (await client.post("/api/generate", json=chat, headers=key)).status_code == 200


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
