"""`fleet serve --demo` as a newcomer meets it: what it prints works, and so does every curl line of the README."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import reduce
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.processes import FLEET, Running, ended
from tests.e2e.support import ask
from tests.kit.places import ROOT

pytestmark = pytest.mark.slow

README = ROOT / "README.md"
SERVERS = {"simulated-fast", "simulated-medium", "simulated-slow"}
CURL = shutil.which("curl")


class Demo(Running):
    """A running demo and the commands it advised."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        assert process.stdout is not None
        self.commands: list[str] = []
        while "Stop with" not in (line := process.stdout.readline()):
            assert line, "the demo ended"
            if line.startswith("  curl "):
                self.commands.append(line.strip())


@contextmanager
def launched(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, on free ports, away from any config.yml; its log goes to a file."""
    names = ("PROXY", "ORCHESTRATOR", "DASHBOARD", "METRICS")
    ports = {f"FLEET_SERVER__{name}_PORT": "0" for name in names}
    environment = {**os.environ, **ports}
    with (folder / "log").open("w") as log:
        command = [FLEET, "serve", "--demo"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=log, text=True, cwd=folder, env=environment)
        with ended(process):
            yield process


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[Demo]:
    """A demo all of whose servers are healthy; it must end well."""
    with launched(folder) as process:
        with trio.fail_after(60):
            running = await trio.to_thread.run_sync(Demo, process, abandon_on_cancel=True)
            while (await ask(running.url, "GET", "/api/orchestrator/health")).json()["healthyServers"] != 3:
                await trio.sleep(0.02)
        yield running
        process.send_signal(signal.SIGTERM)
        assert await running.exit_code(within=40) == 0
    text = (folder / "log").read_text()
    assert not re.search("ERROR|Traceback", text), text


async def obey(command: str) -> tuple[int, str]:
    """Run a curl command line, with curl where there is one; status and body of the answer."""
    with trio.fail_after(60):
        return await (_by_curl(command) if CURL else _by_httpx(command))


async def _by_curl(command: str) -> tuple[int, str]:
    more = ["--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}"]
    finished = await trio.run_process([*shlex.split(command), *more], capture_stdout=True)
    body, _, status = finished.stdout.decode().rpartition("\n")
    return int(status), body


async def _by_httpx(command: str) -> tuple[int, str]:
    words = iter(shlex.split(command)[1:])
    url, method, headers, data = "", "", {}, None
    for word in words:
        if word == "-d":
            data = next(words)
        elif word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif not word.startswith("-"):
            url = word
    if data is not None:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
        answer = await client.request(method or ("GET" if data is None else "POST"), url, headers=headers, content=data)
    return answer.status_code, answer.text


def advised(text: str) -> list[str]:
    """The curl commands of a document's bash blocks, each on one line."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl ")]


async def test_what_the_demo_advises_works_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        assert len(running.commands) == 3
        bodies = []
        for command in running.commands:
            status, body = await obey(command)
            assert status == 200, (command, body)
            bodies.append(body)
        tags, chat, servers = bodies
        assert "llama3:8b" in {model["name"] for model in json.loads(tags)["models"]}
        records = [json.loads(line) for line in chat.splitlines()]
        assert records[-1]["done"] is True
        assert "simulated" in "".join(record["message"]["content"] for record in records).lower()
        assert {server["id"] for server in json.loads(servers)["servers"]} == SERVERS
        answer = await ask(running.url, "POST", "/api/generate", {"model": "phi3:mini", "prompt": "x", "stream": False})
        assert answer.headers["x-fleet-server"] in SERVERS


async def test_every_curl_line_of_the_readme_works(tmp_path: Path) -> None:
    commands = advised(README.read_text())
    assert len(commands) >= 10
    async with demo(tmp_path) as running:
        real = {
            "http://localhost:11435": running.url,
            "http://localhost:5100": running.orchestrator_url,
            "http://localhost:3001": running.dashboard_url,
            "http://localhost:8001": running.metrics_url,
        }
        for command in commands:
            assert any(written in command for written in real), command
            here = reduce(lambda text, pair: text.replace(*pair), real.items(), command)
            status, body = await obey(here)
            assert status == 200, (here, body)
            assert body, here
        await until_well(running)


async def until_well(running: Demo) -> None:
    """A reader who has tried everything is left with a fleet that is as well as it was."""
    with trio.fail_after(30):
        while (found := (await ask(running.url, "GET", "/health")).json())["status"] != "ok":
            await trio.sleep(0.1)
    servers = (await ask(running.orchestrator_url, "GET", "/api/orchestrator/servers")).json()["servers"]
    assert {each["id"]: each["status"] for each in servers} == dict.fromkeys(SERVERS, "healthy"), found
