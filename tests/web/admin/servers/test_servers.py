"""Servers by REST: what is documented of each route, and that it really does it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.scheduling.server_state import Admin
from fleet.simulator import Profile
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import MODELS, QUICK, served
from tests.kit.fleets.tcp import sim_server
from web.admin.servers import servers

SLOW = Profile(load_seconds=0.0, slots=4, tokens_per_second=20.0, prefill_per_second=50_000.0)
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 30}}


async def test_the_list_says_of_each_server_what_it_is_and_how_it_is() -> None:
    async with served("a", "b") as fleet:
        found = await ask(fleet, "GET", "/servers")
        assert found["count"] == 2
        first = found["servers"][0]
        assert (first["id"], first["status"], first["healthy"], first["inFlight"]) == ("a", "healthy", True, 0)
        assert first["health"]["state"] == "healthy"
        assert first["admin"]["state"] == "active"
        assert "llama3:8b" in first["models"]
        assert first["lastResponseTime"] >= 0
        assert (await ask(fleet, "GET", "/servers/a"))["server"]["id"] == "a"
        await ask(fleet, "GET", "/servers/nope", status=404)


async def test_a_server_is_added_probed_and_used() -> None:
    async with served("a", models="other:1b:1GB") as fleet, sim_server(MODELS, QUICK, id="new") as sim:
        given = {"id": "new", "url": sim.url + "/", "maxConcurrency": 2, "priority": 5, "tags": ["gpu"]}
        found = await ask(fleet, "POST", "/servers/add", given)
        assert (found["id"], found["url"], found["maxConcurrency"]) == ("new", sim.url, 2)
        assert found["server"].items() >= {"status": "healthy", "priority": 5, "tags": ["gpu"]}.items()
        assert "llama3:8b" in found["server"]["models"]
        async with fleet.client() as client:
            answer = await client.post("/api/chat", json=CHAT | {"stream": False})
        assert answer.status_code == 200
        assert answer.headers["x-fleet-server"] == "new"


async def test_a_server_that_does_not_answer_is_accepted_and_marked() -> None:
    async with served("a") as fleet:
        found = await ask(fleet, "POST", "/servers/add", {"id": "ghost", "url": "http://127.0.0.1:9"})
        assert found["server"]["status"] == "unhealthy"
        assert "127.0.0.1:9" in found["server"]["why"] or "refused" in found["server"]["why"].lower()


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "id and url are required"),
    ({"id": "x"}, 400, "id and url are required"),
    ({"id": "x", "url": "nonsense"}, 400, "url"),
    ({"id": "x", "url": "ftp://x"}, 400, "url"),
    ({"id": "x y", "url": "http://x"}, 400, "id"),
    ({"id": "x", "url": "http://x", "maxConcurrency": -5}, 400, "maxConcurrency"),
    ({"id": "x", "url": "http://x", "priority": "high"}, 400, "priority"),
    ({"id": "x", "url": "http://x", "nonsense": 1}, 400, "nonsense"),
    ({"id": "x", "url": "http://x", "apiKey": "env:PATH"}, 400, "apiKey"),
    ({"id": "x", "url": "http://169.254.169.254/latest"}, 400, "url"),
    ({"id": "x", "url": "http://metadata.google.internal"}, 400, "url"),
    ({"id": "a", "url": "http://x"}, 409, "'a' already exists"),
]


@pytest.mark.parametrize(("given", "status", "says"), BAD, ids=lambda value: str(value)[:40])
async def test_what_cannot_be_added_is_refused_by_name(given: dict[str, Any], status: int, says: str) -> None:
    async with served("a") as fleet:
        found = await ask(fleet, "POST", "/servers/add", given, status=status)
        assert says in found["error"] + found.get("details", "")
        assert len(fleet.system.servers) == 1


async def test_a_second_server_with_an_equivalent_url_is_refused_and_the_first_one_named() -> None:
    async with served("a") as fleet:
        url = fleet.sims["a"].url.replace("127.0.0.1", "LOCALHOST") + "/"
        found = await ask(fleet, "POST", "/servers/add", {"id": "x", "url": url}, status=409)
        assert found["existingServerId"] == "a"
        assert found["existingUrl"] == fleet.sims["a"].url
        assert found["requestedUrl"] == url
        assert found["normalizedUrl"] == fleet.sims["a"].url


async def test_the_fleet_itself_is_no_server() -> None:
    async with served("a") as fleet:
        found = await ask(
            fleet, "POST", "/servers/add", {"id": "x", "url": fleet.system.membership.own_urls[0]}, status=409
        )
        assert "own address" in found["error"]


async def test_a_server_is_removed_when_its_requests_have_ended() -> None:
    async with served("a", profile=SLOW) as fleet, fleet.client() as client, trio.open_nursery() as nursery:
        answers: list[bytes] = []
        begun = trio.Event()

        async def chat() -> None:
            async with client.stream("POST", "/api/chat", json=CHAT) as answer:
                async for piece in answer.aiter_bytes():
                    answers.append(piece)
                    begun.set()

        nursery.start_soon(chat)
        await begun.wait()
        found = await ask(fleet, "DELETE", "/servers/a")
        assert found == {"success": True, "id": "a"}
        assert b'"done":true' in b"".join(answers)
        await ask(fleet, "DELETE", "/servers/a", status=404)


async def test_a_server_removed_by_force_cuts_its_requests_off() -> None:
    async with served("a", profile=SLOW) as fleet, fleet.client() as client:
        async with client.stream("POST", "/api/chat", json=CHAT) as answer:
            pieces = answer.aiter_lines()
            await pieces.__anext__()
            await ask(fleet, "DELETE", "/servers/a?force=true")
            rest = [line async for line in pieces]
        assert '"error"' in rest[-1]
        fleet.assert_nothing_left()


async def test_a_change_takes_effect_and_says_what_changed() -> None:
    async with served("a") as fleet:
        given = {"maxConcurrency": 9, "priority": -3, "tags": ["x"], "apiKey": "sekret-key-1"}
        found = await ask(fleet, "PATCH", "/servers/a", given)
        assert (found["id"], found["maxConcurrency"]) == ("a", 9)
        assert found["changed"] == ["maxConcurrency", "priority", "tags", "apiKey"]
        assert found["server"]["apiKey"] == "***REDACTED***"
        state = fleet.system.cell(ServerId("a")).state
        assert (state.ledger.capacity, state.spec.priority, state.spec.tags) == (9, -3, ("x",))
        found = await ask(fleet, "PATCH", "/servers/a", {"apiKey": None})
        assert "apiKey" not in found["server"]
        assert state.spec.api_key is None


async def test_a_changed_url_leads_to_the_new_machine() -> None:
    async with served("a", models="old:1b:1GB") as fleet, sim_server("new:1b:1GB", QUICK, id="z") as sim:
        found = await ask(fleet, "PATCH", "/servers/a", {"url": sim.url})
        assert found["server"]["models"] == ["new:1b"]
        async with fleet.client() as client:
            assert (await client.post("/api/chat", json=CHAT | {"model": "new:1b"})).status_code == 200
            assert (await client.post("/api/chat", json=CHAT | {"model": "old:1b"})).status_code == 404


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing to change"),
        ({"maxConcurrency": 0}, "maxConcurrency"),
        ({"maxConcurrency": None}, "maxConcurrency"),
        ({"maxConcurrency": True}, "maxConcurrency"),
        ({"url": "nope"}, "url"),
        ({"url": "http://2852039166/"}, "url"),
        ({"id": "b"}, "id"),
        ({"tags": ["x" * 65]}, "tags"),
    ],
)
async def test_a_bad_change_changes_nothing(given: dict[str, Any], says: str) -> None:
    async with served("a") as fleet:
        before = fleet.system.cell(ServerId("a")).state.spec
        found = await ask(fleet, "PATCH", "/servers/a", given, status=400)
        assert says in found["error"]
        assert fleet.system.cell(ServerId("a")).state.spec == before


async def test_a_change_to_a_taken_url_or_of_an_unknown_server_is_refused() -> None:
    async with served("a", "b") as fleet:
        found = await ask(fleet, "PATCH", "/servers/a", {"url": fleet.sims["b"].url}, status=409)
        assert found["existingServerId"] == "b"
        await ask(fleet, "PATCH", "/servers/nope", {"priority": 1}, status=404)


async def test_a_drained_server_gets_nothing_until_it_is_undrained() -> None:
    async with served("a", "b") as fleet:
        found = await ask(fleet, "POST", "/servers/a/drain", {"reason": "noisy fan"})
        assert found["inFlightRequests"] == 0
        assert (found["state"]["state"], found["state"]["why"]) in [("draining", "noisy fan"), ("drained", "noisy fan")]
        shown = (await ask(fleet, "GET", "/servers/a"))["server"]
        assert (shown["draining"], shown["status"]) == (True, "drained")
        assert shown["admin"]["by"] == "anonymous"
        async with fleet.client() as client:
            for _ in range(6):
                answer = await client.post("/api/chat", json=CHAT | {"stream": False})
                assert answer.headers["x-fleet-server"] == "b"
        found = await ask(fleet, "POST", "/servers/a/undrain")
        assert found["state"]["state"] == "active"
        assert fleet.system.cell(ServerId("a")).state.admin is Admin.ACTIVE
        await ask(fleet, "POST", "/servers/zzz/drain", status=404)
        await ask(fleet, "POST", "/servers/zzz/undrain", status=404)


async def test_maintenance_begins_ends_and_ends_by_itself() -> None:
    async with served("a") as fleet:
        until = round(time.time() * 1000) + 60_000
        found = await ask(fleet, "POST", "/servers/a/maintenance", {"reason": "new disk", "until": until})
        assert found["maintenance"] is True
        assert found["state"]["why"] == "new disk"
        assert found["state"]["until"] == pytest.approx(until, abs=100)
        await ask(fleet, "POST", "/servers/a/undrain", status=409)
        found = await ask(fleet, "POST", "/servers/a/maintenance", {"enabled": False})
        assert (found["maintenance"], found["state"]["until"]) == (False, None)
        found = await ask(fleet, "POST", "/servers/a/maintenance", {"enabled": False})
        assert found["maintenance"] is False
        await ask(fleet, "POST", "/servers/a/maintenance", {"durationMs": 200})
        with trio.fail_after(20):
            while fleet.system.cell(ServerId("a")).state.admin is Admin.MAINTENANCE:
                await trio.sleep(0.02)


@pytest.mark.parametrize(
    "given",
    [{"until": 1}, {"until": 1, "durationMs": 1}, {"durationMs": 0}, {"enabled": "perhaps"}, {"reason": "x" * 501}],
)
async def test_a_bad_maintenance_is_refused(given: dict[str, Any]) -> None:
    async with served("a") as fleet:
        await ask(fleet, "POST", "/servers/a/maintenance", given, status=400)
        await ask(fleet, "POST", "/servers/zzz/maintenance", {}, status=404)
        assert fleet.system.cell(ServerId("a")).state.admin is Admin.ACTIVE


async def test_a_change_that_waited_for_a_name_server_took_back_what_another_had_changed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answered = trio.Event(), trio.Event()

    async def slowly(url: str, section: object) -> None:
        asked.set()
        await answered.wait()

    async with served("a") as fleet, sim_server(MODELS, QUICK, id="new") as sim, trio.open_nursery() as nursery:
        monkeypatch.setattr(servers, "checked", slowly)
        nursery.start_soon(ask, fleet, "PATCH", "/servers/a", {"url": sim.url})
        await asked.wait()
        await ask(fleet, "PATCH", "/servers/a", {"maxConcurrency": 9})
        answered.set()
        while (shown := await ask(fleet, "GET", "/servers/a"))["server"]["url"] != sim.url:
            await trio.sleep(0.01)
        assert shown["server"]["maxConcurrency"] == 9
