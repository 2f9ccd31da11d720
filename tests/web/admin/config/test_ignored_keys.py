"""What clients of the reference send and we have no use for is taken and named; typing errors are refused as ever."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.common.ids import ServerId
from fleet.config import Config
from fleet.config.loading.ignored_keys import health_check, known_config
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import served

FROM_THE_DASHBOARD = {"type": "ollama", "v1Models": "a, b", "forceOllama": True, "anthropicPathOverride": "/x"}


async def test_a_server_is_added_and_changed_as_the_reference_s_dashboard_does_it() -> None:
    async with served("a") as here:
        given = {"id": "x", "url": "http://127.0.0.1:9", **FROM_THE_DASHBOARD}
        found = await ask(here, "POST", "/servers/add", given)
        assert found["ignored"] == list(FROM_THE_DASHBOARD)
        found = await ask(here, "PATCH", "/servers/x", {"type": "auto", "maxConcurrency": 2})
        assert (found["ignored"], found["changed"]) == (["type"], ["maxConcurrency"])
        found = await ask(here, "PATCH", "/servers/x", {"type": "auto"})
        assert (found["ignored"], found["changed"]) == (["type"], [])
        assert (await ask(here, "PATCH", "/servers/x", {"priority": 2}))["ignored"] == []


@pytest.mark.parametrize("typo", ["tipe", "Type", "maxConcurency", "forceollama"])
async def test_a_typing_error_in_a_server_is_refused(typo: str) -> None:
    async with served("a") as here:
        body = {"id": "x", "url": "http://127.0.0.1:9", typo: 1}
        assert typo.lower() in (await ask(here, "POST", "/servers/add", body, status=400))["error"].lower()
        found = await ask(here, "PATCH", "/servers/a", {typo: 1}, status=400)
        assert typo.lower() in found["error"].lower()
        assert set(here.system.servers) == {ServerId("a")}


async def test_the_dashboard_posts_the_whole_configuration_back_with_one_field_changed() -> None:
    async with served("a") as here:
        whole: dict[str, Any] = (await ask(here, "GET", "/config"))["config"]
        whole |= {"logLevel": "debug", "streaming": {"enabled": True}, "configReloadIntervalMs": 0}
        whole["queue"] |= {"timeout": 300_000, "maxSize": 77}
        whole["circuitBreaker"] |= {"adaptiveThresholds": True}
        whole["servers"][0] |= {"type": "ollama"}
        found = await ask(here, "POST", "/config", whole)
        named = ["circuitBreaker.adaptiveThresholds", "configReloadIntervalMs", "logLevel", "queue.timeout"]
        assert sorted(found["ignored"]) == sorted([*named, "servers.0.type", "streaming"])
        assert [change["path"] for change in found["changed"]] == ["queue.max_size"]
        assert (await ask(here, "POST", "/config", {"host": "0.0.0.0"}))["ignored"] == ["host"]
        assert (await ask(here, "PATCH", "/config/queue", {"timeout": 5}))["ignored"] == ["queue.timeout"]


@pytest.mark.parametrize(
    "body",
    [
        {"loglevel": "debug"},
        {"queue": {"timeouts": 5}},
        {"logging": {"logLevel": "debug"}},
        {"healthCheck": {"intervlMs": 5}},
        {"healthCheck": {"interval": 5}},
        {"healthCheck": 7},
        {"servers": [{"id": "x", "url": "http://x", "tipe": "ollama"}]},
    ],
    ids=str,
)
async def test_a_typing_error_in_the_configuration_is_refused(body: dict[str, Any]) -> None:
    async with served("a") as here:
        found = await ask(here, "POST", "/config", body, status=400)
        assert "unknown key" in found["error"]


async def test_the_health_check_is_shown_in_the_reference_s_words_and_obeyed() -> None:
    async with served("a") as here:
        shown = (await ask(here, "GET", "/config"))["config"]["healthCheck"]
        assert set(shown) == {
            "enabled", "intervalMs", "timeoutMs", "maxConcurrentChecks", "retryAttempts", "retryDelayMs",
            "recoveryIntervalMs", "failureThreshold", "successThreshold", "backoffMultiplier",
        }  # fmt: skip
        assert (shown["intervalMs"], shown["timeoutMs"], shown["failureThreshold"]) == (10_000, 5000, 2)
        changed = {**shown, "intervalMs": 30_000, "failureThreshold": 5, "retryAttempts": 2}
        found = await ask(here, "POST", "/config", {"healthCheck": changed})
        assert found["ignored"] == ["healthCheck.retryAttempts"]
        assert {each["path"] for each in found["changed"]} == {"health.interval", "health.failures"}
        assert found["config"]["healthCheck"]["intervalMs"] == 30_000
        found = await ask(here, "PATCH", "/config/healthCheck", {"timeoutMs": 2500})
        assert (found["section"], here.system.config.health.tags_timeout) == ("healthCheck", 2.5)
        found = await ask(here, "PATCH", "/config/healthCheck", {"intervalMs": "soon"}, status=400)
        assert found["problems"][0]["path"] == "health.interval"


def test_what_is_shown_and_sent_back_changes_nothing() -> None:
    config = Config.model_validate({"health": {"interval": 7.5, "max_backoff": 61}})
    assert known_config({"healthCheck": health_check(config.health)}, config) == ({}, [])


async def test_a_url_that_ends_in_a_route_of_ollama_is_taken_with_a_hint() -> None:
    async with served("a", "b", health={"interval": 100.0, "failures": 1}) as here:
        url = here.sims["b"].url
        await ask(here, "DELETE", "/servers/b")
        for path in ("/v1", "/api", "/v1/", "/API"):
            found = await ask(here, "POST", "/servers/add", {"id": "x", "url": url + path})
            assert "leave it out" in found["hints"][0]
            assert found["hints"][0].startswith("url: ends in /")
            assert f"ends in {path.rstrip('/').lower()}" in found["server"]["why"]
            await ask(here, "DELETE", "/servers/x")
        found = await ask(here, "PATCH", "/servers/a", {"url": url + "/v1"})
        assert found["hints"]
        found = await ask(here, "POST", "/config", {"servers": [{"id": "a", "url": url + "/api"}]})
        assert found["hints"] == [f"servers.0.url: {each.partition(': ')[2]}" for each in found["hints"]]
        assert len(found["hints"]) == 1
        found = await ask(here, "PATCH", "/servers/a", {"url": url})
        assert (found["hints"], found["server"]["status"]) == ([], "healthy")
