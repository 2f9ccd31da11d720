"""Listings come from memory: hosts that accept and never answer delay nobody."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial

import pytest
import trio

from actors.system import open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from tests.e2e.support import CHAT, MODELS, ask
from tests.kit.fleets.served import QUICK
from tests.kit.fleets.tcp import sim_server
from tests.kit.suite.pace import soonest
from web.serve import serve

DEAD = 30
LIMIT = 0.05


@asynccontextmanager
async def one_good_among_the_dead() -> AsyncIterator[str]:
    """The proxy's URL; the good server has been probed, the probes of the others hang."""
    async with AsyncExitStack() as stack:
        silent = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=1000)))
        good = await stack.enter_async_context(sim_server(MODELS, QUICK, id="good"))
        port = silent.getsockname()[1]
        specs = [{"id": f"dead-{n}", "url": f"http://127.0.0.1:{port}/{n}"} for n in range(DEAD)]
        ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}
        config = Config.model_validate({"servers": [{"id": "good", "url": good.url}, *specs], "server": ports})
        async with open_system(config, seed=1) as system, trio.open_nursery() as nursery:
            urls = await nursery.start(partial(serve, config, system=system, stop=trio.Event()))
            await system.probe(ServerId("good"), 5.0)
            yield urls[0]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/v1/models"])
async def test_dead_hosts_delay_no_listing(path: str) -> None:
    async with one_good_among_the_dead() as url:
        await ask(url, "GET", "/")  # whatever is made on first need

        async def listed() -> float:
            began = trio.current_time()
            answer = await ask(url, "GET", path)
            assert answer.status == 200
            assert path == "/api/ps" or CHAT in answer.text
            return trio.current_time() - began

        assert await soonest(listed, LIMIT) < LIMIT
