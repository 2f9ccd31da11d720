"""Keys as an operator handles them: made, used and revoked while the fleet runs; roles and the audit log end to end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fleet.security.api_keys import new_key
from fleet.simulator import Profile
from tests.e2e.processes import FLEET, serving
from tests.e2e.support import MODELS, Answer, ask, every_door
from tests.kit.fleets.served import Served, served

ADMIN = "/api/orchestrator"
CLIENT, OPERATOR, ADMINISTRATOR = (new_key(bytes([at]) * 32) for at in range(3))
SECURITY = {
    "keys": [
        {"name": "app", "key": CLIENT},
        {"name": "ops", "role": "operator", "key": OPERATOR},
        {"name": "root", "role": "admin", "key": ADMINISTRATOR},
    ]
}
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "Hi"}], "stream": False}


def keys(file: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [FLEET, "keys", *arguments, "--file", str(file)], capture_output=True, text=True, timeout=120, check=True
    )
    return ended.stdout.strip()


async def until(status: int, url: str, key: str, within: float = 20.0) -> Answer:
    with trio.fail_after(within):
        while True:
            answer = await ask(url, "GET", "/api/tags", None, f"X-API-Key: {key}")
            if answer.status == status:
                return answer
            await trio.sleep(0.02)


@pytest.mark.slow
async def test_a_key_works_soon_after_it_was_made_and_no_longer_soon_after_it_was_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    with serving(tmp_path, {}, security={"keys_file": str(file)}) as running:
        assert (await ask(running.url, "GET", "/api/tags")).status == 403
        key = keys(file, "add", "app", "--role", "client")
        await until(200, running.url, key)
        keys(file, "revoke", "app")
        await until(403, running.url, key)
        file.write_text("nonsense")  # a bad file brings nobody back, and locks nobody out
        other = tmp_path / "other.jsonl"
        root = keys(other, "add", "root", "--role", "admin")
        other.replace(file)
        await until(200, running.url, root)
        running.process.terminate()
        assert await running.exit_code() == 0
        assert running.process.stderr is not None
        log = running.process.stderr.read()
    assert key not in log
    assert root not in log


@every_door
async def test_each_role_does_what_it_may_and_no_more(port: Callable[[Served], str]) -> None:
    async with served("a", models=MODELS, security=SECURITY) as fleet:
        url = port(fleet)
        for key, chats, copies, adds in (
            (CLIENT, 200, 403, 403),
            (OPERATOR, 200, 200, 403),
            (ADMINISTRATOR, 200, 200, 400),
        ):
            field = f"Authorization: Bearer {key}"
            assert (await ask(url, "POST", "/api/chat", CHAT, field)).status == chats
            names = {"source": "tiny:latest", "destination": f"copy-{adds}"}
            assert (await ask(url, "POST", "/api/copy", names, field)).status == copies
            assert (await ask(url, "POST", f"{ADMIN}/servers/add", {}, field)).status == adds


async def test_a_backend_gets_its_own_key_and_never_a_clients(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with served("a", models=MODELS, security=SECURITY, profile=Profile(load_seconds=0.0)) as fleet:
        for field in (f"Authorization: Bearer {CLIENT}", f"X-API-Key: {CLIENT}", f"api-key: {CLIENT}"):
            answer = await ask(fleet.url, "POST", f"/api/chat?api_key={CLIENT}", CHAT, field)
            assert answer.status == 200
        seen = fleet.sims["a"].host.seen("/api/chat")
        assert len(seen) == 3
        assert not [each for each in seen if CLIENT in f"{each.target} {each.headers} {each.body!r}"]
    assert not [line for line in caplog.records if CLIENT in str(vars(line))]


async def test_the_audit_log_names_the_key_and_survives_hostile_names() -> None:
    async with served("a", models=MODELS, security=SECURITY) as fleet:
        field = f"X-API-Key: {OPERATOR}"
        await ask(fleet.url, "DELETE", "/api/delete", {"model": f"{CLIENT}\n\x1b[31m"}, field)
        await ask(fleet.url, "DELETE", "/api/delete", {"model": "tiny"}, field)
        answer = await ask(fleet.url, "GET", f"{ADMIN}/audit", None, f"X-API-Key: {ADMINISTRATOR}")
    entries = answer.json()["entries"]
    assert [(each["who"], each["action"], each["outcome"]) for each in entries[:1]] == [("ops", "delete", "done")]
    assert CLIENT not in json.dumps(entries)


@pytest.mark.slow
async def test_what_was_answered_is_in_the_audit_log_after_the_process_was_killed(tmp_path: Path) -> None:
    field = f"X-API-Key: {ADMINISTRATOR}"
    with serving(tmp_path, {}, security=SECURITY) as running:
        for order in ("pause", "resume"):
            answer = await ask(running.url, "POST", f"{ADMIN}/queue/{order}", None, field)
            assert (answer.status, answer.headers.get("x-fleet-kept")) == (200, None)
        running.process.kill()
    with serving(tmp_path, {}, security=SECURITY) as running:
        answer = await ask(running.url, "GET", f"{ADMIN}/audit", None, field)
    entries = answer.json()["entries"]
    assert [(each["who"], each["action"]) for each in entries] == [("root", "resume queue"), ("root", "pause queue")]
    kept = b"".join(each.read_bytes() for each in (tmp_path / "data").iterdir())
    for key in (CLIENT, OPERATOR, ADMINISTRATOR):
        assert key.encode() not in kept
