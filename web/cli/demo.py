"""`fleet serve --demo`: three simulated servers of different speed, the fleet in front, a trickle of traffic.

Everything is simulated and says so: the servers' ids, the answers' text, the log lines.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import httpx
import trio

from actors.kit.clock import process_clock
from fleet.config import Config
from fleet.simulator import Profile
from web.serve import Setting, run
from web.simulator.engine.host import make_host
from web.simulator.tcp import serve_sim

log = logging.getLogger("fleet.demo")

MODELS: Final = "llama3:8b:4.7GB,phi3:mini:2.3GB,llama2:13b:7.4GB,nomic-embed-text:latest:274MB"

SERVERS: Final = {
    "simulated-fast": Profile(load_seconds=1.5, slots=4, tokens_per_second=80.0, prefill_per_second=3000.0),
    "simulated-medium": Profile(load_seconds=3.0, slots=2, tokens_per_second=35.0, prefill_per_second=900.0),
    "simulated-slow": Profile(load_seconds=5.0, slots=1, tokens_per_second=12.0, prefill_per_second=250.0),
}

_PROMPTS: Final = ("Why is the sky blue?", "Name three rivers.", "What is machine learning?", "Tell me a short story.")
_EVERY: Final = 3.0
"""Mean seconds between two requests of the trickle."""


def run_demo(config: Config, say: Callable[[str], None], *, source: str) -> int:
    """Run until a signal; the exit code. Raises PortTaken."""
    return run(config, say, source=source, setting=_Demo(say))


class _Demo(Setting):
    """Three servers before the fleet starts, traffic and advice once it listens."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    @asynccontextmanager
    async def around(self, config: Config) -> AsyncIterator[Config]:
        async with trio.open_nursery() as nursery:
            servers = []
            for seed, (name, profile) in enumerate(SERVERS.items()):
                host = make_host(MODELS, profile, id=name, seed=seed)
                port = await nursery.start(serve_sim, host, 0)
                servers.append({"id": name, "url": f"http://127.0.0.1:{port}", "max_concurrency": "auto"})
            store = {**config.store.model_dump(), "enabled": config.store.enabled and bool(config.store.url)}
            history = {**config.history.model_dump(), "enabled": config.history.enabled and bool(config.history.url)}
            changes = {
                "servers": servers,
                "store": store,
                "history": history,
            }  # what is made up is kept only where somebody asks for it
            yield Config.model_validate({**config.model_dump(exclude={"servers"}), **changes})
            nursery.cancel_scope.cancel()

    async def beside(self, urls: list[str]) -> None:
        self._advise(urls)
        await _trickle(urls[1])  # the orchestrator's port has no rate limit; the proxy's is the visitor's

    def _advise(self, urls: list[str]) -> None:
        chat = '{"model":"llama3:8b","messages":[{"role":"user","content":"Hello!"}]}'
        self._say("\nThis is a demo: all three servers are SIMULATED. Try:\n")
        self._say(f"  curl {urls[0]}/api/tags")
        self._say(f"  curl {urls[0]}/api/chat -d '{chat}'")
        self._say(f"  curl {urls[1]}/api/orchestrator/servers\n")
        self._say("Stop with Ctrl-C.")


async def _trickle(url: str) -> None:
    """One request now and then, from the demo to itself."""
    dice = process_clock(seed=0).chance
    # verify: with TLS configured this is still the demo talking to itself
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120.0, verify=False) as client:
        while True:
            await trio.sleep(dice.expovariate(1.0 / _EVERY))
            model = dice.choice(["llama3:8b", "phi3:mini", "llama2:13b"])
            body = {"model": model, "prompt": dice.choice(_PROMPTS), "options": {"num_predict": 60}}
            try:
                await client.post("/api/generate", json=body, headers={"user-agent": "fleet-demo (simulated traffic)"})
            except httpx.HTTPError as error:
                log.warning("demo request failed: %s", error)
