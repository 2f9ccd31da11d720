"""A Prometheus of its own for a test: on loopback, with the files that the fleet ships, at the pace of a test."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
import yaml

from fleet.config import Config
from fleet.observability.prometheus.rule_files import rules, scraping
from tests.e2e.processes import ended
from tests.kit.suite import tools
from web.process.bind import bind

PACE = {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"}
Labels = tuple[str, ...]


class Prometheus:
    """A running one, by its API. `moment`, if set, is when questions are about (epoch seconds), else now.

    A scrape that fails, as on a machine that is too busy, ends all series until the next one; not at an earlier moment.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.moment: float | None = None

    async def get(self, path: str, **query: str) -> Any:
        """The `data` of an answer of the API."""
        answer = await self._client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def ask(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an instant vector."""
        when = {} if self.moment is None else {"time": f"{self.moment:.3f}"}
        data = await self.get("query", query=expr, **when)
        assert data["resultType"] == "vector", expr
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    async def table(self, expr: str, *labels: str) -> dict[Labels, float]:
        """The same by the values of some labels."""
        return {tuple(found.get(label, "") for label in labels): value for found, value in await self.ask(expr)}

    async def number(self, expr: str) -> float | None:
        """The value of an expression with one, None without any."""
        found = await self.ask(expr)
        assert len(found) <= 1, found
        return found[0][1] if found else None


@asynccontextmanager
async def prometheus(folder: Path, metrics_url: str, key: str) -> AsyncIterator[Prometheus]:
    """One that scrapes a fleet's metrics port with an API key, configured by what `fleet export` writes."""
    port = int(metrics_url.rpartition(":")[2])
    config = Config.model_validate({"server": {"metrics_port": port}, "security": {"api_keys": [key]}})
    (folder / "fleet-key").write_text(f"{key}\n")  # as `fleet keys add` prints it
    (folder / "fleet-alerts.yml").write_text(rules(config.alerts))
    settings = yaml.safe_load(scraping(config))
    (folder / "prometheus.yml").write_text(yaml.safe_dump({**settings, "global": PACE}))
    port = _free_port()
    with (folder / "log").open("w") as log, ended(_started(folder, port, log)):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
            with trio.fail_after(60):
                await _until_ready(client)
            yield Prometheus(client)


def _started(folder: Path, port: int, log: Any) -> subprocess.Popen[str]:
    program = tools.find("prometheus")
    assert program is not None
    words = {
        "--config.file": folder / "prometheus.yml",
        "--storage.tsdb.path": folder / "data",
        "--web.listen-address": f"127.0.0.1:{port}",
        "--log.level": "warn",
    }
    command = [program, *(f"{word}={value}" for word, value in words.items())]
    return subprocess.Popen(command, stdout=log, stderr=log, text=True)


def _free_port() -> int:
    """Prometheus does not say which port it took when told to take any."""
    bound = bind("127.0.0.1", 0, "test")
    bound.close()
    return bound.port


async def _until_ready(client: httpx.AsyncClient) -> None:
    while True:
        try:
            if (await client.get("/-/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await trio.sleep(0.02)
