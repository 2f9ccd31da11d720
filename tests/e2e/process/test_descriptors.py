"""A fleet that has no descriptor left: it says so once, harms nothing, and is itself again when there are some."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import IO

import pytest
import trio

from fleet.security.api_keys import StoredKey, digest_of, new_key, written
from fleet.security.roles import Role
from tests.e2e.processes import FLEET, ended, serving, write_config
from tests.e2e.support import ask

if not hasattr(resource, "prlimit"):
    pytest.skip("limits of another process are Linux's", allow_module_level=True)

_CONFIG = "/api/orchestrator/config"
KEY = new_key(b"k" * 32)


def limit(process: subprocess.Popen[str], descriptors: int) -> None:
    hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def started(config: Path, log: IO[str]) -> subprocess.Popen[str]:
    command = [FLEET, "serve", "--config", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


async def test_the_fleet_recovers_from_having_no_descriptors(tmp_path: Path) -> None:
    keys, said = tmp_path / "keys", tmp_path / "said"
    keys.write_text("")
    keys.chmod(0o600)
    security = {"keys_file": str(keys), "require_api_key": False}
    path = write_config(tmp_path, {"a": "http://127.0.0.1:9"}, queue={"max_size": 5}, security=security)
    with said.open("w") as log, ended(started(path, log)) as process, trio.fail_after(60):
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        while "config" not in process.stdout.readline():
            pass
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0]
        limit(process, 3)  # within the first second
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        waiting = [socket.create_connection(address) for _ in range(20)]
        path.write_text(path.read_text().replace("max_size: 5", "max_size: 6"))
        keys.write_text(written([StoredKey("ci", Role.CLIENT, digest_of(KEY))]))
        await trio.sleep(4.0)  # for everything that tries again and again to do so
        assert process.poll() is None
        limit(process, before)
        for each in waiting:
            each.close()
        while (await ask(url, "GET", _CONFIG)).json()["config"]["queue"]["maxSize"] != 6:
            await trio.sleep(0.1)
        path.write_text(path.read_text().replace("max_size: 6", "max_size: 7"))  # and it is watched on
        while (await ask(url, "GET", _CONFIG)).json()["config"]["queue"]["maxSize"] != 7:
            await trio.sleep(0.1)
        while "1 keys in use" not in said.read_text():
            await trio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait, 20) == 0
    text = said.read_text()
    assert "Too many open files" in text
    assert "Traceback" not in text
    assert text.count("cannot accept connections") <= 8, text  # four ports: once when it begins, once when it ends
    assert len(text.splitlines()) < 60, text


async def test_a_fleet_that_is_short_of_descriptors_still_stops(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as running:
        limit(running.process, 3)
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit_code(20.0) == 0
