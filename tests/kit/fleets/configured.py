"""A running product that was started with a configuration file, as `fleet serve` starts it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from actors.config.settings import Settings
from actors.config.sources import Origin, Reading
from actors.storage.history.queries import History
from actors.system import System, open_system
from fleet.common.ids import ServerId
from fleet.config import load
from fleet.simulator import Profile
from tests.kit.fleets.served import MODELS, QUICK, Served
from tests.kit.fleets.tcp import sim_server
from web.admin.kit.context import AppContext
from web.admin.route_table import TOPICS
from web.process.log_buffer import LogRing
from web.process.private_listener import private_socket
from web.serve import serve

ROOT = "/api/orchestrator/config"
PORTS = "server:\n  proxy_port: 0\n  orchestrator_port: 0\n  dashboard_port: 0\n  metrics_port: 0\n"


class Configured(Served):
    """URLs and handles, and the file."""

    def __init__(self, url: str, other: str, system: System, sims: Any, path: Path, settings: Settings) -> None:
        super().__init__(url, other, system, sims)
        self.path = path
        self.settings = settings

    async def get(self, path: str = "") -> Any:
        async with self.client() as client:
            return (await client.get(ROOT + path)).json()

    async def ask(self, method: str, path: str = "", **body: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.request(method, ROOT + path, json=body)

    def rewrite(self, text: str) -> None:
        """As an editor does: in one step."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.path)


@asynccontextmanager
async def configured(
    directory: Path,
    *servers: str,
    text: str = "",
    env: Mapping[str, str] | None = None,
    name: str = "config.yml",
    seed: int = 1,
    models: str = MODELS,
    profile: Profile = QUICK,
    history: History | None = None,
) -> AsyncIterator[Configured]:
    """`text` is the file without its servers and ports; `{a}` in it is the URL of server `a`."""
    async with AsyncExitStack() as stack:
        sims = {each: await stack.enter_async_context(sim_server(models, profile, id=each)) for each in servers}
        path = directory / name
        text = whole(text, {each: sim.url for each, sim in sims.items()})
        path.write_text(text)
        environment = dict(env or {})
        loaded = load(text, environment, {}, source=name)
        origin = Origin(path, name, environment, {}, Reading(name, text, loaded))
        system = await stack.enter_async_context(open_system(loaded.config, seed=seed, history=history))
        settings = Settings(system, origin)
        inner = stack.enter_context(private_socket(time.time()))
        nursery = await stack.enter_async_context(trio.open_nursery())
        context = AppContext(system, settings, LogRing.installed(), TOPICS)
        serving = partial(serve, loaded.config, system=system, stop=trio.Event(), inner=inner, context=context)
        urls = await nursery.start(serving)
        for each in servers:
            await system.probe(ServerId(each), 5.0)
        yield Configured(urls[0], urls[1], system, sims, path, settings)
        nursery.cancel_scope.cancel()


def whole(text: str, urls: Mapping[str, str]) -> str:
    """A file with these servers."""
    found = PORTS + text
    if urls and "servers:" not in text:
        found += "servers:\n" + "".join(f"  - id: {name}\n    url: {url}  # {name}\n" for name, url in urls.items())
    return found
