"""The dashboard's port: a page for browsers, Ollama's greeting for everybody else, the reference's status."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import jsonschema
import trio

from fleet.simulator import Profile
from tests.kit.fleets.served import Served, served
from web.admin.kit.schemas import schema
from web.admin.observability.dashboard_routes import topic

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
KEYS: dict[str, Any] = {
    "require_api_key": True,
    "keys": [{"name": role, "role": role, "key": f"{role}-key-0123456789"} for role in ("client", "operator")],
}


def key(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {role}-key-0123456789"}


def browser(fleet: Served, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=fleet.dashboard_url, trust_env=False, timeout=20.0, headers={**BROWSER, **headers}
    )


async def until_looked(fleet: Served) -> None:
    with trio.fail_after(60):
        while fleet.system.monitor.verdict.code == "starting":
            await trio.sleep(0.01)


async def test_browsers_get_a_page_that_nothing_can_be_put_into() -> None:
    async with served("gpu-a", "gpu-b") as fleet, browser(fleet) as client:
        for path in ("/", "/status", "/?refresh=0"):
            page = await client.get(path)
            assert page.status_code == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
            assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
            assert "unsafe" not in page.headers["content-security-policy"]
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers["referrer-policy"] == "no-referrer"
            assert page.headers["cache-control"] == "no-store"
            assert "gpu-a" in page.text
            assert "gpu-b" in page.text
            assert fleet.system.membership.own_urls[0] in page.text
            assert "<script" not in page.text
            assert "style=" not in page.text
        style = await client.get("/status.css")
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        assert "prefers-color-scheme:dark" in style.text
        assert (await client.head("/")).text == ""
        assert (await client.get("/?refresh=soon")).status_code == 400


async def test_everybody_else_is_greeted_as_by_ollama() -> None:
    async with served("gpu-a") as fleet, browser(fleet, Accept="*/*") as client:
        for accept in ("*/*", "application/json", "text/html;q=0", "text/plain, text/html;q=0.5"):
            answer = await client.get("/", headers={"Accept": accept})
            assert answer.text == "Ollama is running"
            assert answer.headers["vary"] == "Accept"
        async with httpx.AsyncClient(base_url=fleet.url, trust_env=False, headers=BROWSER) as proxy:
            assert (await proxy.get("/")).text == "Ollama is running"
            assert (await proxy.get("/status")).status_code == 404


async def test_where_keys_are_required_the_page_names_nobody_without_one() -> None:
    async with served("gpu-a", security=KEYS) as fleet, browser(fleet) as client:
        for path in ("/", "/status"):
            for fields in ({}, key("client")):
                before = fleet.system.monitor.verdict.plain
                page = await client.get(path, headers=fields)
                assert page.status_code == 200
                assert "gpu-a" not in page.text
                assert any(plain in page.text for plain in (before, fleet.system.monitor.verdict.plain))
            assert "gpu-a" in (await client.get(path, headers=key("operator"))).text
        assert (await client.get("/status.css")).status_code == 200
        assert (await client.get("/api/status")).status_code == 403
        assert (await client.get("/api/status", headers=key("client"))).status_code == 200


async def test_the_status_has_the_shape_of_the_reference() -> None:
    (entry,) = [each for each in topic.entries if each.path == "/api/status"]
    async with served("gpu-a", ai_status={"enabled": True, "model": "tiny"}) as fleet, browser(fleet) as client:
        await until_looked(fleet)
        answer = (await client.get("/api/status")).json()
        jsonschema.Draft202012Validator(schema(entry.returns)).validate(answer)
        assert list(answer) == [
            "status",
            "version",
            "uptime_seconds",
            "connected_clients",
            "last_update",
            "ai_status_enabled",
            "monitoring_active",
        ]
        assert answer["status"] == "online"
        assert answer["connected_clients"] == 0
        assert answer["ai_status_enabled"] is True
        assert answer["monitoring_active"] is True
        age = datetime.now().astimezone() - datetime.fromisoformat(answer["last_update"])
        assert abs(age.total_seconds()) < 60


async def test_the_page_shows_what_is_wrong_and_leaves_no_listener_behind() -> None:
    profile = Profile(load_seconds=0.0, tokens_per_second=500.0)
    async with served("gpu-a", profile=profile) as fleet, browser(fleet) as client, fleet.client() as asking:
        await asking.post("/api/generate", json={"model": "tiny", "prompt": "x", "options": {"num_predict": 5}})
        page = (await client.get("/")).text
        assert "No request has ended" not in page
        assert "<dt>Errors</dt><dd>0%</dd>" in page
        fleet.system.pause(True)
        with trio.fail_after(60):
            while "The queue is paused for" not in (await client.get("/")).text:
                await trio.sleep(0.05)
        assert fleet.system.live_requests.is_resting()


async def test_the_wall_page_frames_a_bare_page_of_ours_and_nothing_else() -> None:
    async with served("gpu-a") as fleet, browser(fleet) as client:
        wall = await client.get("/wall")
        assert "frame-src 'self'" in wall.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in wall.headers["content-security-policy"]
        assert "<script" not in wall.text
        assert "gpu-a" not in wall.text
        page = await client.get("/status?framed=true")
        assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
        assert "gpu-a" in page.text
        assert "http-equiv" not in page.text
        assert "<footer" not in page.text
