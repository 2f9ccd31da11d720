"""OpenTelemetry traces, if `otel.endpoint` says where to: ids while a request runs, spans when it is over.

Off, nothing of OpenTelemetry is imported and a request costs one look at `RequestContext.begin_trace`. On, the data
path makes ids only; the recorder hands finished requests over, and a worker thread makes their spans and sends them. A
collector that does not keep up costs spans, which are counted, and never a request.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from actors.kit.inbox import Inbox
from actors.kit.supervisor import keep_up
from actors.state.messages import OURSELVES, RequestRecord
from fleet.common.ids import ServerId
from fleet.common.randomness import Dice
from fleet.config import Config
from fleet.config.schema.receivers import COLLECTOR, rules
from fleet.observability.tracing.spans import Span, tree
from fleet.observability.tracing.trace_context import SAMPLED, Trace, chosen, parent_of

if TYPE_CHECKING:
    from actors.kit.clock import Clock
    from actors.state.servers import Servers
    from fleet.protocol.call import Call

log = logging.getLogger("fleet.tracing")

MOST: Final = 4096
"""Finished requests that wait to be sent; what comes on top is dropped."""
BATCH: Final = 64
"""Requests sent at one time: some 200 spans, whose making keeps the interpreter for about 5 ms."""
_REST: Final = 1.0
"""Seconds between two batches, unless there is a whole one."""
_QUIET: Final = 60.0
"""Seconds between two complaints."""
FLUSH: Final = 2.0
"""Seconds at the end for what is left."""


class Exporter(Protocol):
    """Where spans go (`otlp_exporter`, or a test's own). Called in a worker thread, one call at a time."""

    def send(self, spans: Sequence[tuple[Trace, list[Span]]]) -> str:
        """Deliver the trees; what went wrong, empty if nothing did. May block, for as long as its own limit says."""

    def close(self) -> None:
        """Give up what is being sent."""


class Tracer:
    """The cell and the loop. `begin` is called on the data path, `note` by the recorder; neither fails nor waits."""

    def __init__(self, ratio: float, exporter: Exporter, clock: Clock) -> None:
        self._ratio = ratio
        self._exporter = exporter
        self._clock = clock
        self._dice: Dice = clock.chance
        self._waiting: Inbox[tuple[Trace, RequestRecord, Servers]] = Inbox(MOST)
        self._limiter = trio.CapacityLimiter(1)
        self._closing = False
        self._hurry = trio.Event()
        self._idle = trio.Event()
        self._complained = -math.inf
        self._complained_of = 0
        self._sending = 0
        self.sent = 0
        self.dropped = 0
        """Requests whose spans were lost: no room, or the collector did not take them."""

    def begin(self, call: Call) -> Trace:
        """A request begins: in its client's trace, or in one of its own."""
        parent = parent_of(call.headers)
        if parent is not None:
            trace_id, flags = parent.trace_id, parent.flags
        else:
            trace_id = self._dice.getrandbits(128) or 1
            flags = SAMPLED if chosen(trace_id, self._ratio) else 0
        if call.client == OURSELVES:
            flags = 0  # no client has asked for it, and the recorder keeps it to itself
        return Trace(
            parent,
            trace_id,
            flags,
            self._new_id,
            method=call.method,
            dialect=call.dialect.name,
            asked_model=call.asked_model[:512],
        )

    def note(self, servers: Servers, records: Sequence[RequestRecord]) -> None:
        """Requests to these servers have ended."""
        sampled = [(each.trace, each, servers) for each in records if each.trace is not None and each.trace.sampled]
        if lost := sum(self._waiting.offer(each) is not None for each in sampled):
            self._lose(lost, "too many wait to be sent")
        if len(self._waiting) >= BATCH:
            self._hurry.set()

    async def run(self) -> None:
        """Send until cancelled; after `finish`, until nothing is left."""
        while True:
            while not self._waiting:
                if self._closing:
                    self._idle.set()
                await self._waiting.wait()
            await self._gather()
            await self._send(self._waiting.take(BATCH))

    async def finish(self, within: float) -> None:
        """Send what is left, for so many seconds at the most, and say what was lost since the last complaint."""
        self._closing = True
        self._waiting.wake()
        self._hurry.set()
        with trio.move_on_after(within, shield=True):
            await self._idle.wait()
        self._complained = -math.inf
        self._lose(self._sending + len(self._waiting), "the collector did not take them in time")
        try:
            self._exporter.close()
        except Exception as crash:  # the end of the process is worth more
            log.warning("the exporter of traces did not close: %s", type(crash).__name__)

    async def _gather(self) -> None:
        """Let a batch come together."""
        if len(self._waiting) < BATCH and not self._closing:
            self._hurry = trio.Event()
            with trio.move_on_after(_REST):
                await self._hurry.wait()

    async def _send(self, batch: list[tuple[Trace, RequestRecord, Servers]]) -> None:
        offset, addresses = self._clock.epoch(0.0), _addresses(batch)
        work = partial(_deliver, self._exporter.send, [each[:2] for each in batch], offset, addresses)
        self._sending = len(batch)
        trouble = await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        self._sending = 0
        if trouble:
            self._lose(len(batch), trouble)
        else:
            self.sent += len(batch)

    def _lose(self, count: int, why: str) -> None:
        self.dropped += count
        now, lost = trio.current_time(), self.dropped - self._complained_of
        if lost and now - self._complained >= _QUIET:
            log.warning("traces of %d requests were lost: %s", lost, why)
            self._complained, self._complained_of = now, self.dropped

    def _new_id(self) -> int:
        return self._dice.getrandbits(64) or 1


def _addresses(batch: Sequence[tuple[Trace, RequestRecord, Servers]]) -> dict[str, tuple[str, int]]:
    """Of the servers that were asked and are still there."""
    found: dict[str, tuple[str, int]] = {}
    for _, record, servers in batch:
        for each in record.tries:
            if (cell := servers.get(ServerId(each.server))) is not None:
                found[each.server] = cell.pool.endpoint.host, cell.pool.endpoint.port
    return found


def _deliver(
    send: Callable[[Sequence[tuple[Trace, list[Span]]]], str],
    batch: Sequence[tuple[Trace, RequestRecord]],
    offset: float,
    addresses: dict[str, tuple[str, int]],
) -> str:
    """In the worker thread: nobody changes a record that has ended, nor its trace."""
    try:
        return send([(trace, tree(record, trace, offset, addresses)) for trace, record in batch])
    except Exception as crash:  # whatever it is, tracing is not worth more than a warning
        return type(crash).__name__


def why_not(config: Config) -> str:
    """Why traces cannot be sent as configured; empty if they can, or shall not be."""
    if not config.otel.endpoint:
        return ""
    try:
        _exporter(config).close()
    except ImportError:
        return "needs OpenTelemetry: pip install 'fleet-for-ollama[otel]', or leave it empty"
    except Exception as error:  # of the SDK's own settings, in the environment
        return f"OpenTelemetry cannot be set up: {error}"
    return ""


def _exporter(config: Config) -> Exporter:
    """Imports OpenTelemetry, which most fleets never need."""
    from actors.observability.otlp_exporter import OtlpExporter

    return OtlpExporter(config.otel.endpoint, config.otel.service_name, rules(config)[COLLECTOR])


@asynccontextmanager
async def tracing(config: Config, clock: Clock) -> AsyncIterator[Tracer | None]:
    """The tracer while the block is open, None if traces are off; what is left is sent when it ends."""
    if not config.otel.endpoint:
        yield None
        return
    tracer = Tracer(config.otel.sample_ratio, _exporter(config), clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, "tracing", tracer.run)
        try:
            yield tracer
        finally:
            await tracer.finish(FLUSH)
            nursery.cancel_scope.cancel()
