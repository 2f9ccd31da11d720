"""The health loop of one server: three calls side by side, each with its own limit; a verdict to the server's actor.

A dead host delays nobody but itself. Failing servers are asked less and less often, up to `health.max_backoff`: but
within a second or two while clients want what they have, and at once when anybody got through to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import trio

from actors.servers.server_context import ServerContext
from actors.state.messages import Probed
from actors.state.servers import ServerCell
from actors.upstream.transport_errors import kind_of
from fleet.common.errors import BackendError, BadAnswer, OutOfDescriptors
from fleet.config.schema.urls import hint
from fleet.scheduling.server_state import Row

_GRACE: Final = 0.5
"""Seconds for the version after the calls that decide are over."""
_SOON: Final = 1.5
"""Seconds, jittered, after which a failing server is asked again while clients want its models."""


async def run_health(context: ServerContext, cell: ServerCell) -> None:
    """Probe for ever, jittered; sooner when `cell.probe_now` is set. Cancelled: the calls under way are closed."""
    failures = 0
    while True:
        cell.probe_at, cell.looked = None, context.clock.now()
        cell.probe_now = trio.Event()  # before the round: who asks during it gets another one
        asked, cell.probed = cell.probed, trio.Event()
        client = cell.client
        try:
            result = await probe(context, cell)
        except Exception:
            asked.set()  # the verdict they wait for will never come
            raise
        if result is not None and cell.client is client:  # else that was another machine
            failures = failures + 1 if result.error else 0
            cell.mailbox.cast(replace(result, asked=asked))
        else:
            asked.set()
        cell.pool.sweep()
        cell.probe_at = context.clock.now() + _pause(context, failures)
        if failures:
            await _rest(context, cell)
            continue
        with trio.move_on_at(cell.probe_at) as idle:
            await cell.probe_now.wait()
        if idle.cancelled_caught:
            cell.looked_for.clear()


async def _rest(context: ServerContext, cell: ServerCell) -> None:
    """Until the next round of a failing server is due: `probe_at`, when asked for, or soon if clients want its models.

    Who begins to want them is not told us by anybody, which would cost each of them: we look, once in a while.
    """
    state, now = cell.state, context.clock.now
    assert cell.probe_at is not None
    while (left := cell.probe_at - now()) > 0.0:
        pause = _SOON * (0.8 + 0.4 * context.clock.chance.random())
        with trio.move_on_after(min(left, pause)) as idle:
            await cell.probe_now.wait()
        if not idle.cancelled_caught or context.scheduler.wanted(state.models if state.seen else None, now()):
            return


async def probe(context: ServerContext, cell: ServerCell) -> Probed | None:
    """One round. Only /api/tags decides; /api/ps and /api/version may fail (older or busy servers) without blame.

    None: this process has no descriptor left to ask with, which says nothing about the server.
    """
    health = context.config.current.health
    box = _Box()
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        # Every time: a server may be another version after a restart that no probe has seen.
        nursery.start_soon(box.ask_version, lambda: cell.client.version(health.version_timeout), health.version_timeout)
        async with trio.open_nursery() as deciding:
            deciding.start_soon(box.tags, lambda: cell.client.tags(health.tags_timeout), health.tags_timeout)
            deciding.start_soon(box.ps, lambda: cell.client.ps(health.ps_timeout), health.ps_timeout)
        if cell.state.version is not None:  # the verdict does not wait for the version, unless there is none yet
            nursery.cancel_scope.deadline = trio.current_time() + _GRACE
    cell.rounds += 1
    if box.helpless:
        return None
    error = box.error
    if error and box.answered_wrongly and (what := hint(cell.state.spec.url)):
        error = f"{error}; the server's URL {what}"
    return Probed(error, box.rows, box.resident, box.version, box.answered - started, kind=box.kind, began=started)


def _pause(context: ServerContext, failures: int) -> float:
    """The interval, jittered; doubled for every failed round after the first."""
    health = context.config.current.health
    base = min(health.interval * 2.0 ** max(failures - 1, 0), max(health.max_backoff, health.interval))
    return float(base * (1.0 + health.jitter * (2.0 * context.clock.chance.random() - 1.0)))


class _Box:
    """What the three calls bring home."""

    def __init__(self) -> None:
        self.error = "no answer"
        self.kind = ""
        self.answered_wrongly = False
        self.rows: list[Row] | None = None
        self.resident: list[Row] | None = None
        self.version: str | None = None
        self.helpless = False
        self.answered = trio.current_time()

    async def tags(self, call: Callable[[], Awaitable[list[Row]]], limit: float) -> None:
        with trio.move_on_after(limit) as scope:
            try:
                self.rows = await call()
                self.error = ""
            except BackendError as error:
                self.error, self.kind = error.message, kind_of(error)
                self.answered_wrongly = isinstance(error, BadAnswer)
            except OutOfDescriptors:
                self.helpless = True
        if scope.cancelled_caught:
            self.error, self.kind = f"/api/tags did not answer within {limit:g} s", "first_byte_timeout"
        self.answered = trio.current_time()

    async def ps(self, call: Callable[[], Awaitable[list[Row]]], limit: float) -> None:
        with trio.move_on_after(limit):
            try:
                self.resident = await call()
            except (BackendError, OutOfDescriptors):
                self.resident = None

    async def ask_version(self, call: Callable[[], Awaitable[str | None]], limit: float) -> None:
        with trio.move_on_after(limit):
            try:
                self.version = await call()
            except (BackendError, OutOfDescriptors):
                self.version = None
