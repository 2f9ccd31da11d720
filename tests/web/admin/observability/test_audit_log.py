"""The audit log: who changed what, from where, before and after; on disk before the answer, and without a secret."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import structs

from actors.storage.journal import RECENT, Journal
from fleet.common.ids import ServerId
from fleet.config import ServerSpec
from fleet.security.api_keys import digest_of, new_key
from fleet.security.roles import Role
from tests.kit.fleets.served import served
from tests.web.fake_system import FakeSystem, fleet
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.observability import audit_log
from web.http.ports import Face
from web.process.log_buffer import LogRing, scrubbing

ADMIN = "/api/orchestrator"
KEY = new_key(b"k" * 32)
PLAIN = "an-old-style-key"
BACKEND = "hunter2hunter2"
OPS = f"X-API-Key: {KEY}"
SECURITY: dict[str, Any] = {
    "api_keys": [PLAIN],
    "keys": [
        {"name": "ops", "role": "admin", "sha256": digest_of(KEY)},
        {"name": "ci", "role": "operator", "key": "the-key-of-an-operator"},
    ],
}

probing = RouteGroup("probing", "Routes of this test.")


@probing.post("/probing/<path:target>", "Change something.", role=Role.ADMIN, action="probe", returns=dict)
async def probe(asked: AdminRequest, target: str) -> dict[str, Any]:
    asked.note.about(server=target)
    before = ServerSpec.model_validate({"id": "a", "url": "http://a", "api_key": BACKEND})
    asked.note.change(before=before, after={"url": f"http://u:{BACKEND}@b?x={BACKEND}", "apiKey": BACKEND, "why": KEY})
    return {"success": True}


@pytest.fixture
def _with_a_route(monkeypatch: pytest.MonkeyPatch) -> Any:
    from web import app
    from web.admin import role_enforcement, route_table

    faces = {**route_table.FACES, Face.PROXY: (*route_table.TOPICS, probing)}
    monkeypatch.setattr(route_table, "FACES", faces)
    monkeypatch.setattr(app, "FACES", faces)
    role_enforcement.table.cache_clear()
    yield
    role_enforcement.table.cache_clear()


def lines(system: FakeSystem) -> list[dict[str, Any]]:
    return list(system.journal.recent)


async def test_a_change_is_written_down_with_everything_that_matters() -> None:
    system = FakeSystem(security=SECURITY)
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.ask("DELETE", f"{ADMIN}/servers/a", b"", OPS, "X-Request-Id: r1")
        await wire.ask("DELETE", f"{ADMIN}/servers/z", b"", f"Authorization: Bearer {PLAIN}")
    done, failed = lines(system)
    expected: dict[str, Any] = {
        "who": "ops",
        "role": "admin",
        "from": "127.0.0.1",
        "action": "remove server",
        "targets": {"server": "a"},
    }
    assert done.items() >= (expected | {"outcome": "done", "status": 200, "requestId": "r1", "reason": ""}).items()
    assert done["at"] > 1.7e9
    expected = {"who": "api_keys[0]", "outcome": "failed", "status": 404, "reason": "SERVER_NOT_FOUND"}
    assert failed.items() >= expected.items()


async def test_without_keys_whoever_calls_is_anonymous() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        await (await server.connect()).ask("DELETE", f"{ADMIN}/servers/a")
    assert [line["who"] for line in lines(system)] == ["anonymous"]


async def test_ollamas_changes_are_written_down_too_and_reading_is_not() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        for method, path in (("DELETE", "/api/delete"), ("POST", "/api/pull"), ("POST", "/api/push")):
            await (await server.connect()).ask(method, path, b'{"model":"m"}')
        for method, path in (("GET", f"{ADMIN}/servers"), ("GET", "/api/tags"), ("HEAD", "/api/blobs/sha256:0"),
                             ("POST", "/api/chat")):  # fmt: skip
            await (await server.connect()).ask(method, path, b"{}" if method == "POST" else b"")
    assert [(line["action"], line["targets"].get("model")) for line in lines(system)] == [
        ("delete", "m"), ("pull", "m"), ("push", "m"),
    ]  # fmt: skip


async def test_what_is_refused_changes_nothing_and_cannot_crowd_the_audit_log() -> None:
    system = FakeSystem(security=SECURITY)
    async with fleet(system) as server:
        for field in ("X-API-Key: nobodys-key", "X-API-Key: the-key-of-an-operator"):
            answer = await (await server.connect()).ask("DELETE", f"{ADMIN}/servers/a", b"", field)
            assert answer.status in (401, 403)
    assert lines(system) == []


@pytest.mark.usefixtures("_with_a_route")
async def test_no_secret_reaches_the_audit_log_the_log_or_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    system = FakeSystem(security=SECURITY)
    answers = b""
    async with fleet(system) as server:
        fields = [
            OPS,
            f"Authorization: Bearer {KEY}",
            f"Cookie: key={BACKEND}",
            f"User-Agent: x/{BACKEND}",
            f"Referer: {BACKEND}",
        ]
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", f"{ADMIN}/servers/add", {"id": "c", "url": "http://c", "apiKey": BACKEND}),
            ("POST", f"{ADMIN}/servers/add", {"id": "c", "url": f"http://u:{BACKEND}@c"}),
            ("POST", f"{ADMIN}/servers/add", {"id": "d", "url": "http://d", BACKEND: BACKEND, "tags": BACKEND}),
            ("POST", f"{ADMIN}/servers/add", {"id": BACKEND * 9, "url": "http://d"}),
            ("POST", f"{ADMIN}/probing/{KEY}", {}),
            ("POST", f"{ADMIN}/probing/{PLAIN}", {}),
            ("DELETE", f"{ADMIN}/servers/{KEY}", {}),
            ("DELETE", f"{ADMIN}/servers/{PLAIN}", {}),
            ("POST", "/api/create", {"model": KEY, "system": BACKEND, "from": "m"}),
        ]
        for method, path, body in calls:
            wire = await server.connect()
            answer = await wire.ask(method, f"{path}?key={KEY}&x={BACKEND}", json.dumps(body).encode(), *fields)
            answers += b"" if BACKEND in body else answer.body  # a key that nobody knows is named to its sender
        wire = await server.connect()
        shown = (await wire.ask("GET", f"{ADMIN}/audit", b"", OPS)).body
    kept = json.dumps(lines(system))
    logged = str([vars(line) for line in caplog.records])
    assert len(lines(system)) == 9
    for secret in (KEY, PLAIN, BACKEND):
        assert secret not in kept
        assert secret not in logged
        assert secret.encode() not in shown
    assert BACKEND.encode() not in answers
    assert "***REDACTED***" in kept


@pytest.mark.usefixtures("_with_a_route")
async def test_a_change_shows_before_and_after() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        assert (await (await server.connect()).ask("POST", f"{ADMIN}/probing/a/b")).status == 200
    (line,) = lines(system)
    assert line["targets"] == {"server": "a/b"}
    assert line["before"].items() >= {"id": "a", "url": "http://a", "api_key": "***REDACTED***"}.items()
    assert line["after"] == {
        "url": "http://***REDACTED***@b?***REDACTED***",
        "apiKey": "***REDACTED***",
        "why": "***REDACTED***",
    }


class SlowJournal(Journal):
    """A journal whose store needs to be told when to be done."""

    def __init__(self, kept: bool = True) -> None:
        super().__init__()
        self.asked = trio.Event()
        self.done = trio.Event()
        self.within = 0.0
        self.answer = kept

    async def kept(self, within: float) -> bool:
        self.within = within
        self.asked.set()
        await self.done.wait()
        return self.answer


async def test_a_change_is_answered_only_when_it_is_kept() -> None:
    system = FakeSystem()
    journal = system.journal = SlowJournal()
    statuses: list[int] = []

    async def ask(server: Any) -> None:
        answer = await (await server.connect()).ask("DELETE", f"{ADMIN}/servers/a")
        assert "x-fleet-kept" not in answer
        statuses.append(answer.status)

    async with fleet(system) as server, trio.open_nursery() as nursery:
        nursery.start_soon(ask, server)
        with trio.fail_after(20):
            await journal.asked.wait()
        assert [line["outcome"] for line in lines(system)] == ["done"], "the line is part of what is kept"
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert statuses == []
        journal.done.set()
    assert statuses == [200]
    assert journal.within == 2.0


async def test_a_change_that_could_not_be_kept_is_answered_and_says_so() -> None:
    system = FakeSystem()
    journal = system.journal = SlowJournal(kept=False)
    journal.done.set()
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("DELETE", f"{ADMIN}/servers/a")
    assert (answer.status, answer["x-fleet-kept"]) == (200, "no")


async def test_a_client_that_leaves_meanwhile_does_not_write_a_second_line() -> None:
    system = FakeSystem()
    journal = system.journal = SlowJournal()
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(f"DELETE {ADMIN}/servers/a HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with trio.fail_after(20):
            await journal.asked.wait()
        wire.stream.socket.close()
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert [line["outcome"] for line in lines(system)] == ["done"]


async def test_a_stream_of_records_does_not_wait_for_the_disk() -> None:
    system = FakeSystem()
    system.journal = SlowJournal()
    async with fleet(system) as server:
        with trio.fail_after(20):
            answer = await (await server.connect()).ask("POST", "/api/push", b'{"model":"m"}')
    assert answer.status == 200


# ---- GET /audit


async def read(server: Any, query: str = "", *fields: str) -> tuple[int, dict[str, Any]]:
    answer = await (await server.connect()).ask("GET", f"{ADMIN}/audit{query}", b"", *fields)
    return answer.status, json.loads(answer.body)


async def test_the_log_is_read_page_by_page_newest_first() -> None:
    system = FakeSystem()
    for at in range(5):
        system.join(ServerSpec(id=ServerId(f"s{at}"), url=f"http://s{at}"))
    async with fleet(system) as server:
        for at in range(5):
            await (await server.connect()).ask("DELETE", f"{ADMIN}/servers/s{at}")
        status, first = await read(server, "?limit=2")
        _, second = await read(server, f"?limit=2&before={first['next']}")
        _, last = await read(server, f"?limit=2&before={second['next']}")
    assert status == 200
    pages = [[entry["targets"]["server"] for entry in page["entries"]] for page in (first, second, last)]
    assert pages == [["s4", "s3"], ["s2", "s1"], ["s0"]]
    assert (first["count"], last["count"], last["next"]) == (2, 1, None)
    entry = first["entries"][0]
    assert set(entry) >= {each.encode_name for each in structs.fields(audit_log.AuditLineJson)} - {"before", "after"}
    assert entry["at"].endswith("Z")
    assert abs(entry["timestamp"] / 1000 - lines(system)[-1]["at"]) < 0.01


async def test_a_line_of_another_version_is_shown_as_far_as_it_goes() -> None:
    system = FakeSystem()
    system.journal.audit({"at": 1_700_000_000.0, "action": "reload"})
    async with fleet(system) as server:
        status, body = await read(server)
    assert status == 200
    assert body["entries"][0].items() >= {"action": "reload", "who": "", "at": "2023-11-14T22:13:20.000Z"}.items()


@pytest.mark.parametrize(
    "query", ["limit=0", f"limit={RECENT + 1}", "limit=x", "before=0", "before=x", f"before={2**70}"]
)
async def test_a_bad_query_is_refused(query: str) -> None:
    async with fleet(FakeSystem()) as server:
        assert (await read(server, f"?{query}"))[0] == 400


async def test_only_admins_read_the_log() -> None:
    async with fleet(FakeSystem(security=SECURITY)) as server:
        assert (await read(server))[0] == 401
        assert (await read(server, "", "X-API-Key: the-key-of-an-operator"))[0] == 403
        assert (await read(server, "", OPS))[0] == 200


async def test_a_change_to_a_real_fleet_is_in_its_log() -> None:
    async with served("a", security=SECURITY) as product, product.client(**{"X-API-Key": KEY}) as client:
        await client.post(f"{ADMIN}/servers/add", json={"id": "b", "url": "http://127.0.0.1:9", "apiKey": BACKEND})
        answer = await client.get(f"{ADMIN}/audit")
    (entry,) = answer.json()["entries"]
    assert (entry["who"], entry["action"], entry["targets"]) == ("ops", "add server", {"server": "b"})
    assert BACKEND not in answer.text


@pytest.mark.parametrize("around", ["{}", "because {} is gone", "xx{}yy", "x=1&key={}&y"])
@pytest.mark.parametrize("key", [KEY, PLAIN, "the-key-of-an-operator", BACKEND])
async def test_a_key_inside_a_reason_stands_nowhere(key: str, around: str) -> None:
    servers = [{"id": "a", "url": "http://127.0.0.1:9", "api_key": BACKEND}]
    shown: list[str] = []
    root = logging.getLogger()
    ring = LogRing()
    root.addHandler(ring)
    try:
        async with served(servers=servers, security=SECURITY) as front:
            secrets = front.system.keys.secrets(front.system.config)
            with scrubbing(secrets.scrubbed):
                async with front.client(**{"X-API-Key": KEY}) as client:
                    for body in ({"reason": around.format(key)},):
                        answer = await client.post(f"{ADMIN}/servers/a/drain", json=body)
                        assert answer.status_code == 200, answer.text
                        shown.append(answer.text)
                    for path in ("servers", "health", "audit", "logs"):
                        shown.append((await client.get(f"{ADMIN}/{path}")).text)
    finally:
        root.removeHandler(ring)
    kept, _ = ring.snapshot()
    shown += [f"{each.message} {each.meta}" for each in kept]
    assert not [text for text in shown if key in text]
    assert any("REDACTED" in text for text in shown)
