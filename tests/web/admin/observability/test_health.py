"""Health by REST: honest words, reasons, probes for load balancers, a round of probes on demand."""

from __future__ import annotations

import json
import time
from datetime import datetime
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from actors.config.settings import Settings
from actors.config.sources import ConfigTrouble
from actors.state.messages import RequestRecord
from fleet.common.ids import ServerId
from fleet.config import Problem
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.scheduling.server_state import Admin, Health, Order
from fleet.simulator import Profile
from tests.kit.clients.admin import ROOT, ask, checked
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.history import FakeHistory, history_of, recorder_of
from tests.kit.fleets.served import Served, served
from tests.kit.suite.pace import soonest
from tests.web.fake_system import FakeSystem
from web.admin.observability.symptoms import MOST, symptoms, word_of

SLOW = Profile(load_seconds=0.0, slots=4, tokens_per_second=20.0)
WAIT = {"interval": 100.0, "tags_timeout": 1.0, "ps_timeout": 1.0, "version_timeout": 1.0, "failures": 1}
KEYS = {
    "require_api_key": True,
    "keys": [{"name": role, "role": role, "key": f"{role}-key-0123456789"} for role in ("client", "operator", "admin")],
}


def key(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {role}-key-0123456789"}


async def until(condition: Any) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


def codes(found: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in found["reasons"]]


def ago(iso: str) -> float:
    """Seconds since then."""
    return time.time() - datetime.fromisoformat(iso).timestamp()


async def ill(here: Served, server: str) -> None:
    """Kill one and wait for the verdict."""
    await here.sims[server].kill()
    await here.system.probe(ServerId(server), 5.0)
    await until(lambda: here.system.servers[ServerId(server)].state.health is Health.UNHEALTHY)


async def root(here: Served, path: str, method: str = "GET", **headers: str) -> tuple[httpx.Response, Any]:
    """A route at the root, held against its promise."""
    async with here.client(**headers) as client:
        answer = await client.request(method, path)
    return answer, checked("GET", path, answer) if method == "GET" else None


async def test_a_sound_fleet_is_healthy_and_has_no_reasons() -> None:
    async with served("a", "b") as here:
        found = await ask(here, "GET", "/health")
        assert found.items() >= {"success": True, "status": "healthy", "reasons": [], "servers": 2}.items()
        assert found.items() >= {"healthyServers": 2, "inFlightRequests": 0, "queuedRequests": 0}.items()
        assert 0 < found["uptime"] < 60
        assert found["version"]
        assert found["requestsPerSecond"] == 0.0
        _, people = await root(here, "/health")
        assert people.items() >= {"status": "ok", "reasons": []}.items()
        assert ago(people["timestamp"]) < 5
        figures = {"totalServers": 2, "healthyServers": 2, "totalModels": 3, "inFlightRequests": 0}
        assert people["orchestrator"].items() >= (figures | {"circuitBreakers": {}}).items()
        assert (await root(here, "/health/live"))[1] == {"status": "ok"}
        assert (await root(here, "/health/ready"))[1] == {"status": "ready", "healthyServers": 2}


async def test_requests_per_second_are_those_of_the_last_minute() -> None:
    async with served("a") as here:
        book, now = here.system.statistics.totals.book, trio.current_time()
        book.began = now - 1_000.0
        record = RequestRecord(
            "r", "/api/chat", "m:latest", "", "a", "completed", 200, 1, 0.0, None, 1.0, 1, 0, 0, False
        )
        for moment in (now - 300.0, *(now - 30.0,) * 30):
            book.note(RequestBatch([record]), moment, time.time())
        found = await ask(here, "GET", "/health")
    assert found["requestsPerSecond"] == pytest.approx(0.5, rel=0.1)


async def test_one_server_down_is_degraded_and_all_down_is_unhealthy() -> None:
    async with served("a", "b", health=WAIT) as here:
        await ill(here, "a")
        found = await ask(here, "GET", "/health")
        assert (found["status"], codes(found), found["healthyServers"]) == ("degraded", ["server_unhealthy"], 1)
        (reason,) = found["reasons"]
        assert reason["text"].startswith("server 'a' is not healthy: ")
        assert 0 <= ago(reason["since"]) < 5
        assert (await root(here, "/health/ready"))[0].status_code == 200
        await ill(here, "b")
        found = await ask(here, "GET", "/health")
        assert found["status"] == "unhealthy"
        assert codes(found) == ["no_server", "server_unhealthy", "server_unhealthy"]
        assert 0 <= ago(found["reasons"][0]["since"]) < 5
        answer, body = await root(here, "/health/ready")
        assert answer.status_code == 503
        assert body.items() >= {"status": "not_ready", "reason": "no healthy server", "totalServers": 2}.items()
        assert (await root(here, "/health/live"))[0].status_code == 200
        assert (await root(here, "/health"))[1]["status"] == "unhealthy"


async def test_a_server_taken_out_of_service_is_no_trouble_unless_it_was_the_last() -> None:
    async with served("a", "b", health=WAIT) as here:
        await here.system.ordered(ServerId("a"), Order.MAINTAIN, "new disks", "me")
        await ill(here, "a")
        assert (await ask(here, "GET", "/health"))["status"] == "healthy"
        await here.system.ordered(ServerId("b"), Order.DRAIN, "why not", "me")
        await until(lambda: here.system.servers[ServerId("b")].state.admin is Admin.DRAINED)
        found = await ask(here, "GET", "/health")
        assert (found["status"], codes(found)) == ("unhealthy", ["no_server"])
        assert (await root(here, "/health/ready"))[0].status_code == 503


async def test_a_fleet_without_servers_says_so() -> None:
    async with served() as here:
        found = await ask(here, "GET", "/health")
        assert (found["status"], codes(found)) == ("unhealthy", ["no_server"])
        assert found["reasons"][0] == {"code": "no_server", "text": "the fleet has no servers", "since": None}


async def test_a_paused_queue_is_a_reason_and_since_when() -> None:
    async with served("a") as here:
        await ask(here, "POST", "/queue/pause")
        found = await ask(here, "GET", "/health")
        assert (found["status"], codes(found)) == ("degraded", ["queue_paused"])
        assert 0 <= ago(found["reasons"][0]["since"]) < 5
        assert (await root(here, "/health/ready"))[0].status_code == 200
        await ask(here, "POST", "/queue/resume")
        assert (await ask(here, "GET", "/health"))["status"] == "healthy"


async def test_a_full_queue_is_a_reason() -> None:
    async with (
        served("a", profile=SLOW, slots=1, queue={"max_size": 2}) as here,
        here.client() as client,
        trio.open_nursery() as nursery,
    ):
        body = {"model": "tiny", "prompt": "x", "options": {"num_predict": 10_000}}
        for _ in range(2):
            nursery.start_soon(partial(client.post, "/api/generate", json=body))
        await until(lambda: here.system.queries.queue_view().waiting == 1)
        assert (await ask(here, "GET", "/health"))["status"] == "healthy"
        nursery.start_soon(partial(client.post, "/api/generate", json=body))
        await until(lambda: here.system.queries.queue_view().waiting == 2)
        found = await ask(here, "GET", "/health")
        assert (found["status"], codes(found)) == ("degraded", ["queue_full"])
        assert (found["inFlightRequests"], found["queuedRequests"]) == (1, 2)
        nursery.cancel_scope.cancel()


async def test_a_store_that_cannot_write_is_a_reason() -> None:
    async with served("a") as here:
        standing = here.system.journal.standing
        standing.state, standing.why, standing.since = "degraded", "disk full", time.time() - 60
        found = await ask(here, "GET", "/health")
    assert (found["status"], codes(found)) == ("degraded", ["store_degraded"])
    assert found["reasons"][0]["text"] == "what changes is not kept on disk: disk full"
    assert ago(found["reasons"][0]["since"]) == pytest.approx(60, abs=5)


async def test_a_history_that_cannot_be_written_and_one_that_was_set_aside_are_reasons() -> None:
    history = recorder_of(FakeHistory())
    async with served("a", history=history_of(history)) as here:
        standing = history.standing
        standing.state, standing.why, standing.since = "degraded", "disk full", time.time() - 60
        standing.moved_aside, standing.moved_at = "/data/history.db.corrupt-1", time.time() - 30
        found = await ask(here, "GET", "/health")
    assert (found["status"], codes(found)) == ("degraded", ["history_degraded", "history_set_aside"])
    assert [reason["text"] for reason in found["reasons"]] == [
        "finished requests cannot be kept: disk full",
        "the history was damaged and a new one begun: see /data/history.db.corrupt-1",
    ]


async def test_dropped_records_are_a_reason_for_ten_minutes() -> None:
    async with served("a") as here:
        recorder = here.system.statistics.request_log
        recorder.dropped, recorder.dropped_at = 7, trio.current_time() - 100
        found = await ask(here, "GET", "/health")
        recorder.dropped_at = trio.current_time() - 601
        later = await ask(here, "GET", "/health")
    assert (found["status"], codes(found)) == ("degraded", ["records_dropped"])
    assert found["reasons"][0]["text"].startswith("7 requests")
    assert ago(found["reasons"][0]["since"]) == pytest.approx(100, abs=5)
    assert later["status"] == "healthy"


async def test_a_recorder_that_is_behind_says_when_it_dropped_something() -> None:
    async with served("a") as here:
        recorder = here.system.statistics.request_log
        record = RequestRecord(
            "r", "/api/chat", "m:latest", "", "a", "completed", 200, 1, 0.0, None, 1.0, 1, 0, 0, False
        )
        for _ in range(5_000):  # in one turn: the recorder cannot empty its backlog
            recorder.append(record)
        assert recorder.dropped == 5_000 - 4_096
        assert recorder.dropped_at == pytest.approx(trio.current_time(), abs=5)


def system_of(count: int, ill: int) -> FakeSystem:
    system = FakeSystem([f"s{number}" for number in range(count)])
    for cell in list(system.servers.values())[:ill]:
        cell.state.health, cell.state.why = Health.UNHEALTHY, "connection refused by 10.1.2.3"
    return system


async def test_a_configuration_that_cannot_be_used_is_a_reason() -> None:
    system = system_of(1, 0)
    settings = Settings(system.handle)
    settings.trouble = ConfigTrouble(1e9, (Problem("config.yml", "queue.max_size", "must be a whole number"),))
    (found,) = symptoms(system.handle, settings, named=True)
    assert (found.code, found.since) == ("config_reload_failed", 1e9)
    assert "queue.max_size" in found.text
    (silent,) = symptoms(system.handle, settings, named=False)
    assert "queue" not in silent.text
    assert word_of([found]) == "degraded"


async def test_many_bad_servers_are_named_up_to_a_limit_and_counted_beyond() -> None:
    system = system_of(MOST + 10, MOST + 3)
    found = symptoms(system.handle, Settings(system.handle), named=True)
    assert len(found) == MOST + 1
    assert found[-1].text == "3 more servers are not healthy"


async def test_without_names_servers_are_only_counted() -> None:
    system = system_of(3, 2)
    (found,) = symptoms(system.handle, Settings(system.handle), named=False)
    assert (found.code, found.text) == ("server_unhealthy", "2 of the 3 servers are not healthy")


async def test_a_server_that_was_not_probed_yet_is_not_called_ill() -> None:
    system = system_of(2, 0)
    next(iter(system.servers.values())).state.health = Health.UNKNOWN
    (found,) = symptoms(system.handle, Settings(system.handle), named=True)
    assert found.code == "server_not_probed"


async def test_while_the_fleet_shuts_down_it_is_draining_and_not_ready() -> None:
    async with served("a") as here:
        here.system.drain()
        found = await ask(here, "GET", "/health")
        assert (found["status"], codes(found)) == ("draining", ["draining"])
        answer, body = await root(here, "/health/ready")
        assert (answer.status_code, body["reason"], body["status"]) == (503, "shutting down", "not_ready")
        assert (await root(here, "/health"))[1]["status"] == "draining"
        assert (await root(here, "/health/live"))[0].status_code == 200


@both_lanes
@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", f"{ROOT}/health", f"{ROOT}/stats"])
async def test_head_is_answered_where_get_is(path: str) -> None:
    async with served("a") as here, here.client() as client:
        answer = await client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("application/json")
        here.system.drain()
        expected = 503 if path == "/health/ready" else 200
        assert (await client.head(path)).status_code == expected


@both_lanes
async def test_probes_need_no_key_and_tell_no_names_to_those_without_one() -> None:
    async with served("secret-server", "b", security=KEYS, health=WAIT) as here:
        await ill(here, "secret-server")
        for path in ("/health", "/health/live", "/health/ready"):
            answer, _ = await root(here, path)
            assert answer.status_code == 200
            assert "secret" not in answer.text
            assert "circuitBreakers" not in answer.text
        stranger = (await root(here, "/health"))[1]
        assert stranger["reasons"][0].items() >= {"text": "1 of the 2 servers are not healthy"}.items()
        known = (await root(here, "/health", **key("operator")))[1]
        assert "secret-server" in known["reasons"][0]["text"]
        assert known["orchestrator"]["circuitBreakers"] == {}


async def test_health_is_for_clients_too_and_names_are_for_operators() -> None:
    async with served("secret-server", "b", security=KEYS, health=WAIT) as here:
        await ill(here, "secret-server")
        assert (await ask(here, "GET", "/health", status=401))["success"] is False
        client = await ask(here, "GET", "/health", headers=key("client"))
        assert (client["status"], codes(client)) == ("degraded", ["server_unhealthy"])
        assert "secret" not in json.dumps(client)
        operator = await ask(here, "GET", "/health", headers=key("operator"))
        assert "secret-server" in operator["reasons"][0]["text"]
        for method, path in (("GET", "/stats"), ("GET", "/metrics"), ("POST", "/health-check")):
            await ask(here, method, path, headers=key("client"), status=403)
            await ask(here, method, path, headers=key("operator"))


# ---- a round of probes


async def test_a_health_check_probes_every_server_now() -> None:
    async with served("a", "b", health=WAIT) as here:
        before = {name: len(sim.host.seen("/api/tags")) for name, sim in here.sims.items()}
        found = await ask(here, "POST", "/health-check")
        assert {
            name: len(sim.host.seen("/api/tags")) - count
            for (name, sim), count in zip(here.sims.items(), before.values(), strict=True)
        } == {"a": 1, "b": 1}
    assert found["success"] is True
    assert [server["id"] for server in found["servers"]] == ["a", "b"]
    for server in found["servers"]:
        assert server.items() >= {"healthy": True, "status": "healthy", "reason": "answers probes", "models": 3}.items()
        assert 0 <= server["lastResponseTime"] < 5_000


async def test_a_health_check_finds_who_has_died_since_the_last_round() -> None:
    async with served("a", "b", health=WAIT) as here:
        await here.sims["a"].kill()
        found = {server["id"]: server for server in (await ask(here, "POST", "/health-check"))["servers"]}
    assert (found["a"]["healthy"], found["a"]["status"], found["b"]["healthy"]) == (False, "unhealthy", True)
    assert found["a"]["reason"]


async def test_a_first_failed_probe_is_told_though_the_server_is_not_given_up_yet() -> None:
    async with served("a", health=WAIT | {"failures": 50}) as here:
        await here.sims["a"].kill()
        (found,) = (await ask(here, "POST", "/health-check"))["servers"]
    assert (found["healthy"], found["status"]) == (False, "healthy")
    assert "in a row have failed" in found["reason"]


async def test_a_hanging_server_delays_a_health_check_only_so_long_and_nobody_else() -> None:
    async with served("a", "b", "c", health=WAIT) as here:
        for name in ("a", "b"):
            here.sims[name].host.faults.set("all:hang-before-headers")

        async def check() -> float:
            began = trio.current_time()
            servers = (await ask(here, "POST", "/health-check"))["servers"]
            assert {server["id"]: server["healthy"] for server in servers} == {"a": False, "b": False, "c": True}
            return trio.current_time() - began

        assert await soonest(check, 1.9) < 1.9  # both at once, a second each


async def test_a_health_check_without_a_verdict_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.admin.servers.manual_probe.PATIENCE", 0.2)
    async with served("a", health=WAIT | {"tags_timeout": 50.0}) as here:
        here.sims["a"].host.faults.set("all:hang-before-headers")
        (found,) = (await ask(here, "POST", "/health-check"))["servers"]
    assert (found["healthy"], found["reason"]) == (False, "no verdict within 0.2 s")


async def test_a_health_check_of_no_servers_is_an_empty_list() -> None:
    async with served() as here:
        assert await ask(here, "POST", "/health-check") == {"success": True, "servers": []}


async def test_a_server_that_leaves_during_a_health_check_does_not_fail_it() -> None:
    short = dict.fromkeys(("tags_timeout", "ps_timeout", "version_timeout"), 0.3)
    async with served("a", "b", health=WAIT | short) as here, trio.open_nursery() as nursery:
        here.sims["a"].host.faults.set("all:hang-before-headers")
        answers: list[Any] = []

        async def check() -> None:
            answers.append(await ask(here, "POST", "/health-check"))

        seen = len(here.sims["a"].host.seen("/api/tags"))
        nursery.start_soon(check)
        await until(lambda: len(here.sims["a"].host.seen("/api/tags")) > seen)
        await here.system.remove_server(ServerId("a"), drain=False)
        with trio.fail_after(20):
            while not answers:
                await trio.sleep(0.01)
    assert {server["id"]: server["healthy"] for server in answers[0]["servers"]} == {"a": False, "b": True}
