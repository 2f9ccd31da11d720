"""The configuration by REST: look, change, reload, save, on a running product that was started with a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.config.live.restart_keys import KEYS
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import configured
from tests.kit.fleets.served import served
from tests.web.admin.config.config_requests import get, of_paths, patch, post, told

STARS = "**********"


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Log levels are the process's, not the fleet's."""
    loggers = [logging.getLogger(name) for name in ("fleet", "actors", "web")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


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
