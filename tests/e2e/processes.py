"""Real processes for tests: `fleet sim` and `fleet serve` as an operator starts them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

import trio
import yaml

from tests.e2e.support import ask
from tests.kit.suite.unlimited import unlimited

FLEET = str(Path(sys.executable).parent / "fleet")
_URL = re.compile(r"http://[0-9.]+:\d+")


class Simulator:
    """A `fleet sim` process and where it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = _url_in(process.stdout)


@contextmanager
def simulator(*options: str) -> Iterator[Simulator]:
    """`fleet sim` on a free port."""
    command = [FLEET, "sim", "--port", "0", *options]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        yield Simulator(process)


class Running:
    """A `fleet serve` process and where it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = _url_in(process.stdout)
        self.orchestrator_url = _url_in(process.stdout)
        self.dashboard_url = _url_in(process.stdout)
        self.metrics_url = _url_in(process.stdout)
        self.sims: dict[str, Simulator] = {}

    async def exit_code(self, within: float = 60.0) -> int:
        """Wait until it has ended."""
        with trio.fail_after(within):
            while (code := self.process.poll()) is None:
                await trio.sleep(0.01)
        return code


@contextmanager
def serving(folder: Path, servers: dict[str, str], **config: object) -> Iterator[Running]:
    """`fleet serve` in front of these servers, on free ports."""
    command = [FLEET, "serve", "--config", str(write_config(folder, servers, **config))]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        yield Running(process)


def write_config(folder: Path, servers: dict[str, str], **config: object) -> Path:
    path = folder / "fleet.yml"
    content = {
        "servers": [{"id": name, "url": url} for name, url in servers.items()],
        "server": {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0},
        "health": {"interval": 1},
        **unlimited(config),
    }
    path.write_text(yaml.safe_dump(content))
    return path


@asynccontextmanager
async def fleet_of_two(folder: Path, *options: str, **config: object) -> AsyncIterator[Running]:
    """Two simulators and a fleet in front of them, which knows their models."""
    with ExitStack() as stack:
        sims = {name: stack.enter_context(simulator("--id", name, *options)) for name in ("a", "b")}
        servers = {name: sim.url for name, sim in sims.items()}
        running = stack.enter_context(serving(folder, servers, **config))
        running.sims = sims
        await _until_ready(running.url)
        yield running


async def _until_ready(url: str) -> None:
    with trio.fail_after(60):
        while (await ask(url, "GET", "/api/orchestrator/health")).json()["healthyServers"] != 2:
            await trio.sleep(0.02)


def _url_in(stdout: IO[str] | None) -> str:
    assert stdout is not None
    line = stdout.readline()
    found = _URL.search(line)
    assert found, f"no URL in {line!r}"
    return found[0]


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill the process if it is still there at the end, and close its pipes."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
