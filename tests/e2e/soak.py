"""Does memory stay flat? `python -m tests.e2e.soak --requests 20000` prints the resident size as it goes.

The product and its clients run in this process, the simulated servers in two others, so that what grows here is ours.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import trio

from actors.system import open_system
from fleet.config import Config
from fleet.ids import ServerId
from tests.e2e.processes import simulator
from tests.e2e.storm import Tally, chat_request, one_stream
from tests.e2e.support import CHAT, connect, first_answer, rss_kib, until
from tests.kit.raw import request_bytes
from tests.kit.served import Served
from web.serve import serve

CLIENTS = 16
_FAST = ("--load-seconds", "0", "--tokens-per-second", "5000", "--prefill-per-second", "100000", "--slots", "16")


@asynccontextmanager
async def in_front_of_processes(*options: str) -> AsyncIterator[Served]:
    """The product in this process, two simulated servers in processes of their own."""
    with ExitStack() as stack:
        sims = {name: stack.enter_context(simulator("--id", name, *_FAST, *options)) for name in ("a", "b")}
        specs = [{"id": name, "url": sim.url, "max_concurrency": 8} for name, sim in sims.items()]
        config = Config.model_validate({"servers": specs, "server": {"proxy_port": 0, "orchestrator_port": 0}})
        async with open_system(config, seed=1) as system, trio.open_nursery() as nursery:
            listening = await nursery.start(partial(serve, config, system=system, stop=trio.Event()))
            for name in sims:
                await system.probe(ServerId(name), 5.0)
            yield Served(listening[0], listening[-1], system, {})
            nursery.cancel_scope.cancel()


class Soak:
    """A mixture of requests from a fixed number of clients."""

    def __init__(self, fleet: Served) -> None:
        self.fleet = fleet
        self.tally = Tally()
        self._dice = random.Random(3)
        self._sent = 0

    async def run(self, requests: int) -> int:
        """Send that many requests and wait for all of them; the resident size in KiB afterwards."""
        last = self._sent + requests
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._client, last)
        await until(lambda: not self.fleet.system.in_flight and not self.fleet.system.fleet.tickets)
        return rss_kib()

    async def _client(self, last: int) -> None:
        while self._sent < last:
            self._sent += 1
            await self._request(self._sent)

    async def _request(self, number: int) -> None:
        """Streams, some of them left; answers in one piece on a kept connection; refusals; different models and ids."""
        kind = self._dice.random()
        if kind < 0.6:
            await one_stream(self.fleet, number, self.tally, tokens=5)
        elif kind < 0.7:
            await one_stream(self.fleet, number, self.tally, tokens=50, leave_after=1)
        else:
            await self._kept_connection(number, missing=kind > 0.95)

    async def _kept_connection(self, number: int, *, missing: bool) -> None:
        async with await connect(self.fleet.url) as stream:
            await stream.send_all(chat_request(number, 5, stream=False))
            first = await first_answer(stream)
            body = {"model": f"missing-{number}" if missing else CHAT, "prompt": f"{number}", "stream": False}
            await stream.send_all(request_bytes("POST", "/api/generate", body))
            second = await first_answer(stream)
            self.tally.ends[f"{first.status} {second.status}"] += 1


async def main(requests: int, every: int) -> int:
    async with in_front_of_processes() as fleet:
        soak = Soak(fleet)
        sizes = [await soak.run(every)]
        began = time.perf_counter()
        for done in range(every, requests + 1, every):
            if done > every:
                sizes.append(await soak.run(every))
            rate = max(0, done - every) / (time.perf_counter() - began)
            sys.stdout.write(f"{done:>8} requests  {sizes[-1] / 1024:8.1f} MiB  {rate:6.0f}/s\n")
            sys.stdout.flush()
        fleet.assert_nothing_left()
        sys.stdout.write(f"{dict(soak.tally.ends)}\n")
    return 0 if sizes[-1] - sizes[0] < 10 * 1024 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=2_000)
    given = parser.parse_args()
    sys.exit(trio.run(main, given.requests, given.every))
