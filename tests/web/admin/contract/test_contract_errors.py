"""What is refused, and how names, methods and bodies are read, on both ports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kit.clients.admin import ROOT
from tests.kit.fleets.served import served
from tests.web.admin.contract.here import DEEP, SPELLINGS, Here, logs, running
from tests.web.admin.contract.rows import ROWS
from tests.web.admin.contract.setups import banned, loaded, loading

__all__ = ["logs"]


@dataclass(frozen=True)
class Fault:
    """A call that is refused: its status, and a word that its error must have."""

    method: str
    path: str
    body: object
    status: int
    says: str


FAULTS: Final = (
    Fault("POST", "/servers/add", {"id": "c"}, 400, "url"),
    Fault("POST", "/servers/add", {"id": "c", "url": "ftp://x"}, 400, "url"),
    Fault("POST", "/servers/add", {"id": "c", "url": "http://127.0.0.1:9", "maxConcurrency": 0}, 400, "maxConcurrency"),
    Fault("POST", "/servers/add", {"id": "c", "url": "http://127.0.0.1:9", "colour": 1}, 400, "colour"),
    Fault("POST", "/servers/add", {"id": "a", "url": "http://127.0.0.1:9"}, 409, "'a' already exists"),
    Fault("DELETE", "/servers/nope", None, 404, "'nope'"),
    Fault("DELETE", "/servers/a?force=maybe", None, 400, "force must be true or false"),
    Fault("DELETE", "/servers/a?drain=nope", None, 400, "drain must be true or false"),
    Fault("PATCH", "/servers/nope", {"maxConcurrency": 3}, 404, "'nope'"),
    Fault("PATCH", "/servers/a", {"maxConcurrency": -5}, 400, "maxConcurrency"),
    Fault("PATCH", "/servers/a", {}, 400, "nothing to change"),
    Fault("POST", "/servers/nope/drain", None, 404, "'nope'"),
    Fault("POST", "/servers/nope/undrain", None, 404, "'nope'"),
    Fault("POST", "/servers/nope/maintenance", {}, 404, "'nope'"),
    Fault("POST", "/servers/a/maintenance", {"enabled": "perhaps"}, 400, "enabled"),
    Fault("POST", "/servers/a/maintenance", {"until": 1}, 400, "until"),
    Fault("GET", "/servers/nope/models", None, 404, "'nope'"),
    Fault("POST", "/servers/a/models/pull", {}, 400, "model"),
    Fault("POST", "/servers/nope/models/pull", {"model": "x"}, 404, "'nope'"),
    Fault("DELETE", "/servers/nope/models/x", None, 404, "'nope'"),
    Fault("DELETE", "/servers/a/models/absent:1b", None, 404, "absent"),
    Fault("POST", "/servers/a/models/copy", {"model": "absent:1b", "sourceServerId": "b"}, 400, "absent"),
    Fault("POST", "/servers/a/models/copy", {"model": "x", "sourceServerId": "nope"}, 404, "source server 'nope'"),
    Fault("POST", "/servers/nope/models/copy", {"model": "x"}, 404, "target server 'nope'"),
    Fault("GET", "/metrics?timeRange=yesterday", None, 400, "timeRange"),
    Fault("GET", "/metrics/nope/llama3:8b", None, 404, "'nope'"),
    Fault("GET", "/metrics/a/absent", None, 404, "absent"),
    Fault("POST", "/models/absent/warmup", None, 404, "absent"),
    Fault("POST", f"/models/{DEEP}/warmup", {"servers": ["a", "nope"]}, 404, "'nope'"),
    Fault("POST", f"/models/{DEEP}/warmup", {"priority": "urgent"}, 400, "priority"),
    Fault("POST", f"/models/{DEEP}/warmup", {"servers": "a"}, 400, "servers"),
    Fault("GET", "/models/absent/status", None, 404, "absent"),
    Fault("POST", "/models/no%20name/unload", None, 404, "not a valid model name"),
    Fault("POST", f"/models/{DEEP}/unload", {"serverId": "nope"}, 404, "'nope'"),
    Fault("POST", "/models/absent/cancel", None, 404, "absent"),
    Fault("GET", "/models/idle?threshold=-1", None, 400, "between 0 and 604800000"),
    Fault("GET", "/models/idle?threshold=soon", None, 400, "threshold must be a number"),
    Fault("POST", "/config", {"port": 99_999}, 400, "port"),
    Fault("PATCH", "/config/nonsense", {}, 400, "section"),
    Fault("PATCH", "/config/queue", {"maxSize": "many"}, 400, "queue.max_size"),
    # it was accepted, and then an ERROR with the whole name was logged for a file that cannot be
    Fault("POST", "/config", {"security": {"keysFile": "0" * 256}}, 400, "255 bytes"),
    Fault("POST", "/config", {"security": {"keysFile": "0" * 5000}}, 400, "keys_file"),
    Fault("POST", "/config/reload", {"configPath": "missing.json"}, 404, "missing.json"),
    Fault("POST", "/config/reload", {"configPath": "../../etc/passwd"}, 400, "must end in .yml"),
    Fault("POST", "/config/reload", {"configPath": "../../etc/passwd.yml"}, 400, "directory"),
    Fault("GET", "/circuit-breakers/nope", None, 404, "'nope'"),
    Fault("GET", "/circuit-breakers/nope/x", None, 404, "'nope'"),
    Fault("GET", "/circuit-breakers/a/no%20name", None, 404, "not a valid model name"),
    Fault("POST", "/circuit-breakers/nope/reset", None, 404, "'nope'"),
    Fault("POST", "/circuit-breakers/nope/x/reset", None, 404, "'nope'"),
    Fault("POST", "/circuit-breakers/a/no%20name/open", None, 404, "not a valid model name"),
    Fault("POST", "/circuit-breakers/nope/llama3:8b/open", None, 404, "'nope'"),
    Fault("GET", "/servers/nope/models/x/circuit-breaker", None, 404, "'nope'"),
    Fault("POST", "/servers/nope/models/x/recovery-test", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures?windowMs=1", None, 400, "between 1000 and 604800000"),
    Fault("GET", "/recovery-failures/recent?limit=1.5", None, 400, "limit must be a whole number"),
    Fault("GET", "/recovery-failures/nope", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/nope/history", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/a/history?offset=1000001", None, 400, "between 0 and 1000000"),
    Fault("GET", "/recovery-failures/nope/analysis", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/nope/circuit-breaker-impact", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/nope/circuit-breaker-transitions", None, 404, "'nope'"),
    Fault("POST", "/recovery-failures/nope/reset", None, 404, "'nope'"),
    Fault("GET", "/bans?type=both", None, 400, "type must be one of"),
    Fault("DELETE", "/bans/server/nope", None, 404, "'nope'"),
    Fault("GET", "/queue?limit=0", None, 400, "limit must lie between"),
    Fault("GET", "/in-flight?limit=x", None, 400, "limit must be a whole number"),
    Fault("GET", "/logs?level=loud", None, 400, "level must be one of"),
    Fault("GET", "/logs?since=yesterday", None, 400, "since"),
)


async def test_what_is_refused_names_the_field_or_the_thing_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        before = (await here.ask("GET", "/config"))["config"]
        for each in FAULTS:
            found = await here.ask(each.method, each.path, each.body, status=each.status)
            told = found["error"] + found.get("details", "")
            assert each.says in told, (each, told)
        assert (await here.ask("GET", "/config"))["config"] == before
        servers = (await here.ask("GET", "/servers"))["servers"]
        assert [(each["id"], each["status"]) for each in servers] == [("a", "healthy"), ("b", "healthy")]


async def test_an_equivalent_url_is_refused_with_the_four_fields_of_the_reference(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        url = here.fleet.sims["a"].url
        found = await here.ask("POST", "/servers/add", {"id": "c", "url": url + "/"}, status=409)
        assert (found["existingServerId"], found["existingUrl"]) == ("a", url)
        assert (found["requestedUrl"], found["normalizedUrl"]) == (url + "/", url)


# ---- names, methods, bodies, on both ports


USED_UP: Final = (banned, loaded, loading)
"""What must happen again before each call: the call before has undone it."""


def of_models() -> list[str]:
    return [route for route in ROWS if ":model" in route]


@pytest.mark.parametrize("route", of_models())
async def test_a_model_is_found_by_every_spelling_of_its_name_on_both_ports(route: str, tmp_path: Path) -> None:
    line, method = ROWS[route], route.split()[0]
    where = line.path.replace("llama3:8b", DEEP)
    async with running(tmp_path) as here:
        if line.setup is not None and line.setup not in USED_UP:
            await line.setup(here)
        for url in (here.fleet.url, here.fleet.orchestrator_url):
            here.url = url
            for name in SPELLINGS:
                if line.setup is not None and line.setup in USED_UP:
                    await line.setup(here)
                if method == "DELETE" and where.startswith("/servers"):
                    await here.ask("POST", "/servers/a/models/pull", {"model": DEEP})
                answer = await here.raw(method, ROOT + where.replace(DEEP, name), json=line.body)
                assert answer.status_code == 200, (name, answer.text)
                assert answer.json().get("model", DEEP).lower() == DEEP
                assert answer.json().get("removed", 1) > 0
            twice = await here.raw(method, ROOT + where.replace(DEEP, "me%252Fdeep:7b"), json=line.body)
            assert twice.status_code in (200, 400, 404)
            told = twice.json()
            many = told["trend"]["selectionCount"] if "trend" in told else told.get("removed")
            assert twice.status_code != 200 or many == 0, "what is encoded twice is another name"


async def test_unknown_paths_and_wrong_methods_are_told_in_the_admin_apis_words(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for url in (here.fleet.url, here.fleet.orchestrator_url):
            here.url = url
            for path in ("", "/", "/nope", "//servers", "/servers/", "/metrics/a", "/health/nope"):
                for method in ("GET", "POST", "OPTIONS"):
                    answer = await here.raw(method, ROOT + path)
                    if method != "GET" and path in ("/servers/", "/health/nope", "/metrics/a"):
                        continue
                    assert answer.status_code in (404, 405), (method, path)
                    assert answer.json()["success"] is False
            for method, path, allowed in (
                ("PUT", "/servers", "GET, HEAD"),
                ("OPTIONS", "/servers", "GET, HEAD"),
                ("GET", "/queue/pause", "DELETE, POST"),
                ("POST", "/health", "GET, HEAD"),
                ("PUT", "/bans", "DELETE, GET, HEAD, POST"),
            ):
                answer = await here.raw(method, ROOT + path)
                assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)
                assert answer.json() == {"success": False, "error": "method not allowed"}
            head = await here.raw("HEAD", ROOT + "/servers")
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{bad", 400, "not valid JSON"),
        (b'{"model": NaN}', 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b"null", 400, "must be a JSON object"),
        (b'"x"', 400, "must be a JSON object"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (b"", 400, "serverId: Field required; model: Field required"),
        (b'{"serverId": ["a"], "model": 1}', 400, "serverId: "),
        (b'{"serverId": "nope", "serverId": "a", "model": "x"}', 200, ""),  # the last of two keys counts
        (b'{"serverId": "a", "serverId": "nope", "model": "x"}', 404, "'nope'"),
        (b'{"serverId": "a", "model": "' + b"x" * 3000 + b'"}', 413, "limits.body_bytes"),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
async def test_a_body_is_json_whatever_it_is_called(body: bytes, status: int, says: str, kind: str) -> None:
    async with served("a", limits={"body_bytes": 2048}) as fleet:
        here = Here(fleet, fleet.orchestrator_url)
        headers = {"content-type": kind} if kind else {}
        answer = await here.raw("POST", ROOT + "/bans", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        found = answer.json()
        assert found["success"] is (status == 200)
        assert says in found.get("error", "")


@pytest.mark.parametrize("port", ["proxy", "orchestrator"])
async def test_probes_of_load_balancers_say_when_nothing_can_serve(port: str, tmp_path: Path) -> None:
    async with running(tmp_path, port) as here:
        ready, live, whole = [(await here.raw("GET", f"/health{path}")).json() for path in ("/ready", "/live", "")]
        assert (ready, live) == ({"status": "ready", "healthyServers": 2}, {"status": "ok"})
        assert (whole["status"], whole["orchestrator"]["totalServers"]) == ("ok", 2)
        here.lately(whole["timestamp"])
        for name in "ab":
            await here.ask("POST", f"/servers/{name}/drain")
        answer = await here.raw("GET", "/health/ready")
        assert answer.status_code == 503
        assert answer.json().items() >= {"status": "not_ready", "totalServers": 2}.items()
        assert answer.json()["reason"]
        assert (await here.raw("GET", "/health/live")).status_code == 200
        assert (await here.raw("GET", "/health")).json()["status"] == "unhealthy"
