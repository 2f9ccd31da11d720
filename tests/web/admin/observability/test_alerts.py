"""Alerts by REST, over real sockets: a server that dies, acknowledging, silencing, the verdict everywhere."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.observability.alerting.rules import BY_NAME, RULES
from fleet.observability.alerting.webhook_payload import signature
from fleet.observability.health_summary.summary import HealthSummary, Level
from tests.kit.clients.admin import ask, checked
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served
from web.admin.route_table import entries

QUICK = {"interval": 0.3, "tags_timeout": 1.0, "ps_timeout": 1.0, "version_timeout": 1.0, "failures": 1}
KEYS = {
    "require_api_key": True,
    "keys": [{"name": role, "role": role, "key": f"{role}-key-0123456789"} for role in ("client", "operator", "admin")],
}
NAMED = HealthSummary(
    Level.WARN, "server_slow", "gpu-7 answers 5× slower", "1 server is slow", 1_795_000_000.0, ("server:gpu-7",)
)


@asynccontextmanager
async def impatient(*servers: str, **config: Any) -> AsyncIterator[Served]:
    """A product whose rule about servers has no hold, and that looks ten times a second."""
    async with served(*servers, health=QUICK, **config) as here:
        held = here.system.monitor.alerts
        held.rules = (replace(BY_NAME["FleetServerDown"], hold=0.0, keep_firing=0.0),)
        yield here


async def until(here: Served, condition: Any, within: float = 60.0) -> Any:
    """Look again and again, until the REST API says so."""
    with trio.fail_after(within):
        while not (found := condition(await ask(here, "GET", "/alerts"))):
            here.system.monitor.evaluate()
            await trio.sleep(0.02)
    return found


def key(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {role}-key-0123456789"}


async def test_a_dead_server_fires_is_the_verdict_and_its_return_resolves_it() -> None:
    async with impatient("a", "b") as here:
        await here.sims["b"].kill()
        await here.system.probe(ServerId("b"), 5.0)
        (alert,) = await until(here, lambda found: found["firing"] and found["alerts"])
        assert alert.items() >= {"rule": "FleetServerDown", "state": "firing", "subject": {"server": "b"}}.items()
        assert 0 <= time.time() - alert["since"] < 60
        await until(here, lambda found: here.system.monitor.verdict.code == "server_down")
        for path in ("/api/orchestrator/health", "/health"):
            async with here.client() as client:
                told = checked("GET", path, await client.get(path))["verdict"]
            assert (told["level"], told["code"]) == ("warn", "server_down")
            assert told["headline"].startswith("1 server down: b: ")
        await here.sims["b"].restart()
        await here.system.probe(ServerId("b"), 5.0)
        over = await until(here, lambda found: not found["firing"] and found["alerts"])
        assert [(each["id"], each["state"]) for each in over] == [(alert["id"], "resolved")]
        assert over[0]["resolved"] >= alert["since"]
        await until(here, lambda found: here.system.monitor.verdict.code == "healthy")


async def test_alerts_are_chosen_by_state_number_and_limit() -> None:
    async with impatient("a", "b") as here:
        for _ in range(3):
            await ask(here, "POST", "/alerts/test")
        await here.sims["b"].kill()
        await here.system.probe(ServerId("b"), 5.0)
        await until(here, lambda found: found["firing"])
        found = await ask(here, "GET", "/alerts")
        assert (found["seq"], len(found["alerts"]), found["alerts"][0]["rule"]) == (7, 4, "FleetServerDown")
        assert [each["seq"] for each in found["alerts"]] == [7, 6, 4, 2]
        assert [each["seq"] for each in (await ask(here, "GET", "/alerts?after=2"))["alerts"]] == [4, 6, 7]
        assert len((await ask(here, "GET", "/alerts?state=firing"))["alerts"]) == 1
        assert len((await ask(here, "GET", "/alerts?state=resolved&limit=2"))["alerts"]) == 2
        for query in ("state=odd", "limit=0", "after=-1", "after=x"):
            await ask(here, "GET", f"/alerts?{query}", status=400)


async def test_an_alert_is_acknowledged_by_name_and_that_is_audited() -> None:
    async with impatient("a", "b", security=KEYS) as here:
        here.system.servers[ServerId("b")].state.why = "gone"
        await here.sims["b"].kill()
        await here.system.probe(ServerId("b"), 5.0)
        with trio.fail_after(60):
            while not here.system.monitor.alerts.firing:
                here.system.monitor.evaluate()
                await trio.sleep(0.02)
        name = here.system.monitor.alerts.firing[0].id
        acked = await ask(here, "POST", f"/alerts/{name}/ack", headers=key("operator"))
        assert acked["alert"]["ack"]["by"] == "operator"
        assert here.system.journal.recent[-1]["action"] == "acknowledge alert"
        assert (await ask(here, "DELETE", f"/alerts/{name}/ack", headers=key("operator")))["alert"]["ack"] is None
        await ask(here, "POST", "/alerts/a-0/ack", status=404, headers=key("operator"))
        await ask(here, "DELETE", "/alerts/a-0/ack", status=404, headers=key("operator"))
        await ask(here, "POST", f"/alerts/{name}/ack", status=403, headers=key("client"))
        await ask(here, "GET", "/alerts", status=403, headers=key("client"))


async def test_silences_are_made_listed_and_ended() -> None:
    async with served("a") as here:
        body = {"rule": "FleetServerDown", "subject": {"server": "a"}, "minutes": 30, "reason": "moving it"}
        made = (await ask(here, "POST", "/alerts/silences", body))["silence"]
        assert made.items() >= {"rule": "FleetServerDown", "subject": {"server": "a"}, "reason": "moving it"}.items()
        assert made["until"] == pytest.approx(1000 * time.time() + 1_800_000, abs=60_000)
        later = round(1000 * time.time()) + 60_000
        other = (await ask(here, "POST", "/alerts/silences", {"rule": "FleetQueuePaused", "until": later}))["silence"]
        assert [each["id"] for each in (await ask(here, "GET", "/alerts/silences"))["silences"]] == [
            other["id"],
            made["id"],
        ]
        assert (await ask(here, "GET", f"/alerts/silences/{made['id']}"))["silence"] == made
        assert (await ask(here, "DELETE", f"/alerts/silences/{made['id']}"))["silence"] == made
        await ask(here, "GET", f"/alerts/silences/{made['id']}", status=404)
        await ask(here, "DELETE", f"/alerts/silences/{made['id']}", status=404)


SENSELESS: list[dict[str, Any]] = [
    {},
    {"rule": "FleetServerDown"},
    {"rule": "FleetServerDown", "minutes": 5, "until": 9_999_999_999_999},
    {"rule": "FleetServerDown", "until": 1_000},
    {"rule": "FleetServerDown", "until": 99_999_999_999_999},
    {"rule": "FleetServerDown", "minutes": 0},
    {"rule": "FleetServerDown", "minutes": True},
    {"rule": "FleetDown", "minutes": 5},
    {"rule": "Nonsense", "minutes": 5},
    {"rule": "FleetServerDown", "minutes": 5, "subject": {"model": "x"}},
    {"rule": "FleetServerDown", "minutes": 5, "subject": {"server": 3}},
    {"rule": "FleetServerDown", "minutes": 5, "subject": []},
    {"rule": "FleetServerDown", "minutes": 5, "subject": {"rule": "x"}},
    {"rule": "FleetServerDown", "minutes": 5, "subject": {"self": "x"}},
    {"rule": "FleetServerDown", "minutes": 5, "more": 1},
]


async def test_a_silence_that_makes_no_sense_is_refused() -> None:
    async with served("a") as here:
        for body in SENSELESS:
            await ask(here, "POST", "/alerts/silences", body, status=400)
        assert (await ask(here, "GET", "/alerts/silences"))["silences"] == []


async def test_rules_are_shown_with_the_thresholds_in_effect() -> None:
    async with served("a", alerts={"first_token": 7.5}) as here:
        shown = {each["name"]: each for each in (await ask(here, "GET", "/alerts/rules"))["rules"]}
        assert list(shown) == [rule.name for rule in RULES]
        high = shown["FleetTTFTHigh"]
        assert (high["setting"], high["threshold"]) == ("alerts.first_token", 7.5)
        assert "> 7.5" in high["promql"]
        await ask(here, "PATCH", "/config/alerts", {"first_token": 8.5})
        rules = (await ask(here, "GET", "/alerts/rules"))["rules"]
        assert next(each for each in rules if each["name"] == "FleetTTFTHigh")["threshold"] == 8.5
        assert shown["FleetDown"]["inApp"] is False


async def test_a_test_alert_reaches_the_receiver_of_the_webhook() -> None:
    got: list[bytes] = []

    async def receive(stream: trio.SocketStream) -> None:
        got.append(b"")
        async for data in stream:
            got[-1] += data
            if got[-1].endswith(b"}"):
                await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                return

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, receive, 0, host="127.0.0.1"))
        url = f"http://localhost:{listener.socket.getsockname()[1]}/hook?x=1"
        async with served("a", alerts={"webhook": {"url": url, "secret": "the-secret"}}) as here:
            made = await ask(here, "POST", "/alerts/test")
            assert made["webhook"] is True
            with trio.fail_after(60):
                while not here.system.monitor.webhook.delivered:
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    head, _, body = got[0].partition(b"\r\n\r\n")
    said = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert head.startswith(b"POST /hook?x=1 HTTP/1.1")
    assert said["x-fleet-signature"] == signature("the-secret", said["x-fleet-timestamp"], body)
    assert json.loads(body) == made["alert"]


async def test_the_receivers_url_is_shown_to_nobody_and_stars_leave_it_as_it_is() -> None:
    """Whoever has the URL of a chat's hook may write there."""
    hook, other = "https://hooks.example/T0/SECRET-1", "https://hooks.example/T0/SECRET-2"
    async with served("a", alerts={"webhook": {"url": hook}}) as here:
        shown = await ask(here, "GET", "/config")
        webhook = shown["config"]["alerts"]["webhook"]
        await ask(here, "PATCH", "/config/alerts", {"webhook": {**webhook, "attempts": 7}})
        settings = here.system.config.alerts.webhook
        assert (settings.url.get_secret_value(), settings.attempts) == (hook, 7)
        changed = await ask(here, "PATCH", "/config/alerts", {"webhook": {"url": other}})
        assert [each["path"] for each in changed["changed"]] == ["alerts.webhook.url"]
        assert here.system.config.alerts.webhook.url.get_secret_value() == other
        refused = await ask(here, "PATCH", "/config/alerts", {"webhook": {"url": "SECRET-3"}}, status=400)
        audit = await ask(here, "GET", "/audit")
        assert "change configuration section" in str(audit)
        assert "SECRET" not in str((shown, changed, refused, audit))
        off = await ask(here, "PATCH", "/config/alerts", {"webhook": {"url": ""}})
        assert off["config"]["alerts"]["webhook"]["url"] == ""


def test_the_routes_that_a_runbook_names_are_there() -> None:
    known = {(entry.method, entry.path) for entry in entries()}
    named = [found for rule in RULES for found in re.findall(r"(GET|POST) (/[\w/-]+)", rule.remedy)]
    assert named
    assert set(named) <= known


async def test_a_test_alert_says_whether_there_is_a_webhook() -> None:
    async with served("a") as here:
        made = await ask(here, "POST", "/alerts/test")
        assert (made["webhook"], made["alert"]["rule"], made["alert"]["state"]) == (False, "FleetTest", "firing")
        assert (await ask(here, "GET", "/alerts"))["alerts"][0]["state"] == "resolved"


@both_lanes
async def test_the_verdict_names_nobody_to_those_who_may_not_know() -> None:
    async with served("a", security=KEYS) as here:
        here.system.monitor.evaluate = lambda: None  # type: ignore[method-assign, assignment, return-value]
        here.system.monitor.verdict = NAMED
        async with here.client() as client:
            stranger = checked("GET", "/health", await client.get("/health"))
            friend = checked("GET", "/health", await client.get("/health", headers=key("operator")))
        assert stranger["verdict"] == {
            "level": "warn",
            "code": "server_slow",
            "headline": "1 server is slow",
            "since": "2026-11-18T11:06:40.000Z",
        }
        assert friend["verdict"]["headline"] == "gpu-7 answers 5× slower"
        assert (stranger["status"], stranger["reasons"][0]["code"]) == ("degraded", "server_slow")
        assert "gpu-7" not in str(stranger)
        assert "gpu-7" in str(friend["reasons"])
        client_ = await ask(here, "GET", "/health", headers=key("client"))
        assert "gpu-7" not in str(client_)
