"""Scenarios 11 and 12 in small, in real time: the whole product before simulated servers on real sockets.

What is asserted holds for every policy. What the present default misses is measured by `make regret` (see the table in
bench/regret/results/latest.md), not here: a figure of real time would depend on the machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
import trio

from actors.system import open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from fleet.simulator import Profile
from tests.kit.fleets.served import Served, front_end
from tests.kit.fleets.tcp import sim_server
from tests.kit.suite.unlimited import unlimited
from web.simulator.engine.errors import RUNNER_STOPPED

pytestmark = pytest.mark.slow

MODELS = "amber:8b:5GB,birch:8b:5GB,cedar:8b:5GB,daisy:8b:5GB"
BASE = Profile(slots=2, max_loaded=2, load_seconds=0.2, batch_cost=0.1, slot_caches=True, jitter=0.0)
PORTS = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}


@asynccontextmanager
async def fleet_of(*profiles: Profile, policy: str = "weighted") -> AsyncIterator[Served]:
    """The product before one simulated server per profile."""
    async with AsyncExitStack() as stack:
        sims = {
            f"s{n}": await stack.enter_async_context(sim_server(MODELS, profile, id=f"s{n}"))
            for n, profile in enumerate(profiles)
        }
        servers = [{"id": name, "url": sim.url} for name, sim in sims.items()]
        config = Config.model_validate(
            {"servers": servers, "server": PORTS, "load_balancer": {"policy": policy}, **unlimited({})}
        )
        async with open_system(config, seed=1) as system, front_end(config, system, sims) as handle:
            for name in sims:
                await system.probe(ServerId(name), 5.0)
            yield handle


async def ask(fleet: Served, model: str, prompt: str, tokens: int = 20) -> tuple[int, dict[str, object]]:
    body = {"model": model, "prompt": prompt, "stream": False, "options": {"num_predict": tokens}}
    async with fleet.client() as client:
        answer = await client.post("/api/generate", json=body, timeout=60.0)
    return answer.status_code, answer.json()


async def test_chats_with_four_models_on_three_unequal_servers_all_get_their_answers() -> None:
    speeds = (600.0, 300.0, 150.0)
    profiles = [replace(BASE, tokens_per_second=speed, prefill_per_second=speed * 25) for speed in speeds]
    statuses: list[int] = []

    async def chat(model: str, who: int) -> None:
        said = f"chat {who} "
        for turn in range(4):
            said += f"and then {turn} " * 20
            status, answer = await ask(fleet, model, said)
            statuses.append(status)
            said += str(answer.get("response"))

    with trio.fail_after(120):
        async with fleet_of(*profiles) as fleet:
            async with trio.open_nursery() as nursery:
                for who, model in enumerate(("amber:8b", "amber:8b", "amber:8b", "birch:8b", "birch:8b", "cedar:8b")):
                    nursery.start_soon(chat, model, who)
                nursery.start_soon(chat, "daisy:8b", 6)
            await fleet.until_idle()
            assert statuses == [200] * 28
            assert sum(sim.host.server.loads_begun for sim in fleet.sims.values()) >= 4
            fleet.assert_nothing_left()


async def test_a_poisonous_request_is_told_so_and_the_servers_live_on() -> None:
    profile = replace(BASE, poison="POISON")
    with trio.fail_after(120):
        async with fleet_of(profile, profile) as fleet:
            assert (await ask(fleet, "amber:8b", "hello"))[0] == 200
            status, answer = await ask(fleet, "amber:8b", "this is POISON")
            assert (status, answer) == (500, {"error": RUNNER_STOPPED})
            assert (await ask(fleet, "amber:8b", "hello again"))[0] == 200
            await fleet.until_idle()
            fleet.assert_nothing_left()


@pytest.mark.parametrize("policy", ["weighted", "expected_completion"])
async def test_more_than_a_cold_servers_queue_takes_is_answered_one_way_or_the_other(policy: str) -> None:
    profile = replace(BASE, max_queue=2)
    statuses: list[int] = []

    async def one(prompt: str) -> None:
        statuses.append((await ask(fleet, "birch:8b", prompt))[0])

    with trio.fail_after(120):
        async with fleet_of(profile, profile, policy=policy) as fleet:
            async with trio.open_nursery() as nursery:
                for number in range(16):
                    nursery.start_soon(one, f"number {number}")
            await fleet.until_idle()
            assert statuses == [200] * 16
            assert fleet.system.breakers.describe() == []
            assert len(fleet.system.scheduler.bans) == 0
            fleet.assert_nothing_left()
