"""What a scrape of `/metrics` costs a large fleet, and how much it holds up the event loop.

`python -m bench.parts.scrape [--servers 200] [--models 50] [--json]`. Every model is on every server, and every pair
has had traffic. Milliseconds, medians; `note` is microseconds per finished request, in batches of 25.

* turn: the one turn of the event loop in which all figures are read.
* text, openmetrics: the whole scrape, with the writing in a worker thread, after another request of each pair, so that
  every counter has changed; gzip: the text, compressed. `cpu`: of both threads, without the naps in which the writer
  lets others run. first: the text when no series has ever been written.
* late: how late a task wakes that wants to run each millisecond (median, p99): at rest, and beside endless scrapes.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter, process_time
from typing import Any, Final, cast

import orjson
import trio

from actors.kit.clock import Clock
from actors.kit.mailbox import Mailbox
from actors.observability.metrics_gauges import ModelCounts, snapshot
from actors.parts import TcpBackends
from actors.state.messages import RequestRecord, ServerMail, Try
from actors.state.servers import ServerCell
from actors.storage.journal import Journal
from actors.system import System
from fleet.common.ids import ModelName, ServerId
from fleet.config import Config, ServerSpec
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.scheduling.server_state import Health, ServerState
from web.monitoring.exposition import Exposition
from web.monitoring.exposition_text import OPENMETRICS, TEXT

ROUNDS: Final = 15
_BATCH: Final = 250
_AT_ONCE: Final = 25
_ENDPOINTS: Final = ("/api/chat", "/v1/chat/completions")


@dataclass(frozen=True, slots=True)
class Figures:
    """See the module; `lines` of the text format, `bytes` of the text and of it compressed."""

    servers: int
    models: int
    lines: int
    bytes: int
    zipped_bytes: int
    note: float
    turn: float
    first: float
    text: float
    text_cpu: float
    openmetrics: float
    openmetrics_cpu: float
    gzip: float
    late: tuple[float, float]
    late_by_scrapes: tuple[float, float]


@asynccontextmanager
async def large(servers: int, models: int) -> AsyncIterator[System]:
    """A fleet that does not run, after a request of each pair and endpoint."""
    specs = [
        ServerSpec(id=ServerId(f"gpu-{n:03}"), url=f"http://10.0.{n // 250}.{n % 250 + 1}:1") for n in range(servers)
    ]
    names = [ModelName(f"model-{n}:8b") for n in range(models)]
    async with trio.open_nursery() as nursery:
        system = System(Config(servers=tuple(specs)), TcpBackends(), nursery, Clock(1), Journal())
        for spec in specs:
            state = ServerState(spec, Health.HEALTHY, last_response=0.01)
            state.models = {name: {"name": name} for name in names}
            state.resident = {name: {"name": name, "size_vram": 10**9} for name in names[:4]}
            cell = ServerCell(state, cast(Any, None), cast(Any, None), Mailbox[ServerMail](spec.id))
            system.servers[spec.id] = cell
        for record in traffic(specs, names):
            system.statistics.request_log.digest([record])
        yield system


def traffic(specs: list[ServerSpec], names: list[ModelName]) -> Iterator[RequestRecord]:
    """Two finished requests of each pair."""
    number = 0
    for spec in specs:
        for name in names:
            for endpoint in _ENDPOINTS:
                number += 1
                yield _record(number, endpoint, name, spec.id)


def _record(number: int, endpoint: str, model: str, server: str) -> RequestRecord:
    began = 100.0 + number / 1000
    took = 0.3 + number % 17
    tries = (Try(server, "completed", began, began + 0.2, began + took),)
    return RequestRecord(
        request_id=f"{number:016x}",
        endpoint=endpoint,
        model=model,
        client="10.0.0.1",
        server=server,
        outcome="completed",
        status=200,
        attempts=1,
        queue_seconds=0.0,
        first_byte_seconds=0.2 + number % 3,
        total_seconds=took,
        chunks=100,
        prompt_tokens=20,
        output_tokens=100,
        stream=True,
        load_seconds=2.0 if number % 10 == 0 else 0.001,
        tries=tries,
        began=began,
    )


async def measure(servers: int, models: int, rounds: int = ROUNDS) -> Figures:
    """All figures of a fleet of this size."""
    async with large(servers, models) as system:
        gc.collect()
        gc.freeze()  # as `fleet serve` does
        try:
            return await _measured(system, rounds)
        finally:
            gc.unfreeze()


async def _measured(system: System, rounds: int) -> Figures:
    one = Exposition(share=0.0)
    text = await one.latest(system, TEXT, zipped=False)
    zipped = await one.latest(system, TEXT, zipped=True)
    counts = ModelCounts.of(cell.state for cell in system.servers.values())

    async def scrape(kind: str, *, zipped: bool = False) -> None:
        await one.latest(system, kind, zipped=zipped)

    async def first() -> None:
        await Exposition().latest(system, TEXT, zipped=False)

    median = partial(_median, rounds=rounds, before=partial(_more, system))
    return Figures(
        len(system.servers),
        len(system.queries.catalogs()[0].tags),
        lines=text.count(b"\n"),
        bytes=len(text),
        zipped_bytes=len(zipped),
        note=_note_cost(system, rounds),
        turn=_milliseconds([_timed(lambda: snapshot(system, "1", "3", counts)) for _ in range(rounds)]),
        first=await median(first),
        text=await median(lambda: scrape(TEXT)),
        text_cpu=await median(lambda: scrape(TEXT), clock=process_time),
        openmetrics=await median(lambda: scrape(OPENMETRICS)),
        openmetrics_cpu=await median(lambda: scrape(OPENMETRICS), clock=process_time),
        gzip=await median(lambda: scrape(TEXT, zipped=True)),
        late=await _late(partial(trio.sleep, 0.02), rounds),
        late_by_scrapes=await _late(lambda: scrape(TEXT), rounds),
    )


def _note_cost(system: System, rounds: int) -> float:
    """Microseconds per request."""
    cells = list(system.servers.values())[:10]
    names = list(cells[0].state.models)[:3]
    batch = [_record(n, _ENDPOINTS[0], names[n % len(names)], cells[n % len(cells)].state.id) for n in range(_BATCH)]
    meter = system.statistics.metrics

    def note() -> None:
        for start in range(0, len(batch), _AT_ONCE):
            meter.note(RequestBatch(batch[start : start + _AT_ONCE]), system.clock.now(), 0.0)
        meter.settle()

    took = [_timed(note) for _ in range(rounds)]
    return round(statistics.median(took) / _BATCH * 1e6, 2)


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _more(system: System) -> None:
    """Another request of each pair."""
    servers = system.servers.values()
    names = next(iter(servers)).state.models
    batch = list(traffic([cell.state.spec for cell in servers], list(names)))
    system.statistics.metrics.note(RequestBatch(batch), system.clock.now(), 1e9)


async def _median(
    work: Callable[[], Awaitable[None]],
    rounds: int,
    before: Callable[[], None],
    clock: Callable[[], float] = perf_counter,
) -> float:
    took = []
    for _ in range(rounds):
        before()
        began = clock()
        await work()
        took.append(clock() - began)
    return _milliseconds(took)


async def _late(work: Callable[[], Awaitable[None]], rounds: int) -> tuple[float, float]:
    """How late a task wakes beside some work: median and 99th percentile."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            due = trio.current_time() + 0.001
            await trio.sleep_until(due)
            late.append(trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        done = 0
        while done < rounds or not late:  # two quick scrapes may both be over within the first millisecond
            await work()
            done += 1
        nursery.cancel_scope.cancel()
    ordered = sorted(late)
    return _milliseconds(ordered), _milliseconds([ordered[int(len(ordered) * 0.99)]])


def _milliseconds(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="what a scrape costs")
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures = asdict(trio.run(measure, chosen.servers, chosen.models))
    shown = orjson.dumps(figures).decode() if chosen.json else "\n".join(f"{k:18}{v}" for k, v in figures.items())
    sys.stdout.write(shown + "\n")


if __name__ == "__main__":
    main()
