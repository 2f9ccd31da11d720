"""Does memory stay flat? `python -m tests.e2e.load.soak --requests 20000` prints the resident size as it goes.

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
from typing import NamedTuple

import trio

from actors.system import open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from tests.e2e.load.storm import Tally, chat_request, one_stream
from tests.e2e.processes import simulator
from tests.e2e.support import CHAT, connect, descriptors, first_answer, rss_kib, until
from tests.kit.clients.edge import reset
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served
from tests.kit.suite.unlimited import unlimited
from web.serve import serve

CLIENTS = 16
_FAST = ("--load-seconds", "0", "--tokens-per-second", "5000", "--prefill-per-second", "100000", "--slots", "16")


@asynccontextmanager
async def in_front_of_processes(*options: str) -> AsyncIterator[Served]:
    """The product in this process, two simulated servers in processes of their own."""
    with ExitStack() as stack:
        sims = {name: stack.enter_context(simulator("--id", name, *_FAST, *options)) for name in ("a", "b")}
        specs = [{"id": name, "url": sim.url, "max_concurrency": 8} for name, sim in sims.items()]
        config = Config.model_validate(
            {
                "servers": specs,
                "server": {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0},
                **unlimited({}),
            }
        )
        async with open_system(config, seed=1) as system, trio.open_nursery() as nursery:
            listening = await nursery.start(partial(serve, config, system=system, stop=trio.Event()))
            for name in sims:
                await system.probe(ServerId(name), 5.0)
            yield Served(listening[0], listening[-1], system, {})
            nursery.cancel_scope.cancel()


class Held(NamedTuple):
    """What this process holds."""

    kib: int
    descriptors: int
    tasks: int


def held() -> Held:
    return Held(rss_kib(), descriptors(), trio.lowlevel.current_statistics().tasks_living)


class Soak:
    """A mixture of requests from a fixed number of clients; `leaving` is the share of those that do not stay."""

    def __init__(self, fleet: Served, leaving: float = 0.02) -> None:
        self.fleet = fleet
        self.tally = Tally()
        self._leaving = leaving
        self._dice = random.Random(3)
        self._sent = 0

    async def run(self, requests: int) -> Held:
        """Send that many requests and wait for all of them; what is held afterwards."""
        last = self._sent + requests
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._client, last)
        await until(lambda: not self.fleet.system.in_flight and not self.fleet.system.scheduler.tickets)
        return held()

    async def _client(self, last: int) -> None:
        while self._sent < last:
            self._sent += 1
            await self._request(self._sent)

    async def _request(self, number: int) -> None:
        """Streams; answers in one piece and of the app on a kept connection; refusals; different models and ids."""
        kind = self._dice.random()
        if self._dice.random() < self._leaving:
            await self._leave(number)
        elif kind < 0.6:
            await one_stream(self.fleet, number, self.tally, tokens=5)
        elif kind < 0.65:
            await one_stream(self.fleet, number, self.tally, tokens=50, leave_after=1)
        else:
            await self._kept_connection(number, missing=kind > 0.95)

    async def _leave(self, number: int) -> None:
        """Gone at a random moment: within the head or the body, while waiting, or in mid-answer; by close or reset."""
        stream = await connect(self.fleet.url)
        path = request_bytes("POST", "/api/orchestrator/queue/resume", {"number": number})
        data = self._dice.choice((chat_request(number, 200), path))
        await stream.send_all(data[: self._dice.choice((len(data), len(data), self._dice.randrange(1, len(data))))])
        await trio.sleep(self._dice.choice((0.0, self._dice.random() * 0.05)))
        if self._dice.random() < 0.5:
            reset(stream)
        stream.socket.close()
        self.tally.ends["left"] += 1

    async def _kept_connection(self, number: int, *, missing: bool) -> None:
        async with await connect(self.fleet.url) as stream:
            await stream.send_all(chat_request(number, 5, stream=False))
            first = await first_answer(stream)
            await stream.send_all(request_bytes("GET", "/api/tags"))
            middle = await first_answer(stream)
            body = {"model": f"missing-{number}" if missing else CHAT, "prompt": f"{number}", "stream": False}
            await stream.send_all(request_bytes("POST", "/api/generate", body))
            second = await first_answer(stream)
            self.tally.ends[f"{first.status} {middle.status} {second.status}"] += 1


GROWTH_KIB = 10 * 1024
SPARE = 96
"""Descriptors and tasks by which the kept connections behind the edge may differ from one round to the next."""


def check(first: Held, last: Held) -> None:
    """Nothing may grow with the number of requests."""
    assert last.kib - first.kib < GROWTH_KIB, (first, last)
    assert last.descriptors - first.descriptors < SPARE, (first, last)
    assert last.tasks - first.tasks < SPARE, (first, last)


async def main(requests: int, every: int) -> int:
    async with in_front_of_processes() as fleet:
        soak = Soak(fleet)
        rounds = [await soak.run(every)]
        began = time.perf_counter()
        for done in range(every, requests + 1, every):
            if done > every:
                rounds.append(await soak.run(every))
            rate = max(0, done - every) / (time.perf_counter() - began)
            now = rounds[-1]
            sys.stdout.write(f"{done:>8} requests  {now.kib / 1024:8.1f} MiB  {now.descriptors} files  {rate:6.0f}/s\n")
            sys.stdout.flush()
        fleet.assert_nothing_left()
        sys.stdout.write(f"{dict(soak.tally.ends)}\n")
        check(rounds[0], rounds[-1])
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=2_000)
    given = parser.parse_args()
    sys.exit(trio.run(main, given.requests, given.every))
