"""Rows about the configuration."""

from __future__ import annotations

from typing import Any

from tests.web.admin.contract.here import Here, row


@row("GET /api/orchestrator/config", "/config")
def _(here: Here, found: Any) -> None:
    assert found["config"]["port"] == 5100 or found["config"]["port"] == 0
    assert found["config"]["enableQueue"] is True
    wanted = {
        "baseFailureThreshold": 3,
        "openTimeout": 120_000,
        "halfOpenTimeout": 300_000,
        "halfOpenMaxRequests": 3,
        "recoverySuccessThreshold": 5,
        "activeTestTimeout": 300_000,
        "errorRateThreshold": 0.3,
    }
    assert found["config"]["circuitBreaker"].items() >= wanted.items()
    assert found["source"].endswith("config.yml")


@row("POST /api/orchestrator/config", "/config", {"enableCircuitBreaker": False})
async def _(here: Here, found: Any) -> None:
    assert found["config"]["enableCircuitBreaker"] is False
    assert (await here.ask("GET", "/config"))["config"]["enableCircuitBreaker"] is False


@row("PATCH /api/orchestrator/config/:section", "/config/queue", {"maxSize": 7})
async def _(here: Here, found: Any) -> None:
    assert (found["section"], found["config"]["queue"]["maxSize"]) == ("queue", 7)
    assert (await here.ask("GET", "/queue"))["queue"]["maxSize"] == 7, "it takes effect"


async def changed(here: Here) -> None:
    await here.ask("PATCH", "/config/queue", {"maxSize": 7})


@row("POST /api/orchestrator/config/reload", "/config/reload", setup=changed)
async def _(here: Here, found: Any) -> None:
    assert found["config"]["queue"]["maxSize"] == 1000
    await here.ask("POST", "/config/reload", {"configPath": "missing.yaml"}, status=404)


@row("POST /api/orchestrator/config/save", "/config/save", setup=changed)
async def _(here: Here, found: Any) -> None:
    assert found["path"].endswith("config.yml")
    assert (await here.ask("POST", "/config/reload"))["config"]["queue"]["maxSize"] == 7


@row("GET /api/orchestrator/config/schema", "/config/schema")
def _(here: Here, found: Any) -> None:
    shown = found["schema"]["properties"]
    assert found["schema"]["type"] == "object"
    assert [each["maximum"] for each in shown["port"]["anyOf"] if each["type"] == "integer"] == [65535]
    assert {"queue", "loadBalancer", "circuitBreaker", "security"} <= shown.keys()
