"""One backend's answer on its way through: held, started, relayed piece by piece, judged at its end."""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.answer import Answer
from actors.cells import FleetCell
from actors.described import described
from actors.held import HOLD, Saved, error_text, hold
from actors.lease import Lease, Waiting
from actors.messages import BanPair, ModelMissing
from actors.transport import UpstreamResponse
from fleet.call import Call, Headers
from fleet.dialects.base import Statistics
from fleet.endpoints import SHOW
from fleet.ids import ANY_MODEL
from fleet.outcomes import Completed, End, Incomplete, Refused, StreamError

_COOLDOWN = 60.0
"""Seconds without traffic for a model on a server that says it has no such model though its inventory lists it."""


class Passage:
    """Closes the lease as soon as the outcome is known: what is left to write then holds no slot."""

    def __init__(self, fleet: FleetCell, call: Call, answer: Answer, lease: Lease) -> None:
        self.lease = lease
        self.stats = Statistics()
        self._fleet = fleet
        self._call = call
        self._answer = answer

    async def run(
        self, response: UpstreamResponse, extra: Headers, may_keep: Callable[[Refused], bool]
    ) -> Saved | None:
        """Pass the answer on. A refusal that `may_keep` wants is returned instead, with nothing sent.

        Raises BackendError, ClientGone. Cancelled: the lease stays open, for the caller to close.
        """
        if response.status >= 400:
            return await self._refused(response, extra, may_keep)
        held, raw = await hold(response, 1 if self._call.stream else HOLD, self._beat)
        if self._call.endpoint == SHOW:
            held, raw = await described(response, held, raw, self._beat)
        self.lease.first_byte = self._fleet.now()
        await self._start(response, extra)
        await self._relay(response, held, raw)
        return None

    async def _start(self, response: UpstreamResponse, extra: Headers) -> None:
        """Send the head; a client that does not even take that is watched like one that does not read on."""
        lease, now = self.lease, self._fleet.now
        lease.waiting, lease.beat = Waiting.HEAD, now()
        await self._answer.start(response, extra)
        lease.waiting, lease.beat = Waiting.BACKEND, now()

    async def _relay(self, response: UpstreamResponse, data: bytes, raw: bytes) -> None:
        """Piece by piece, watched by the tap. Nothing here allocates a task, a scope or a parsed object per piece."""
        answer, lease, now = self._answer, self.lease, self._fleet.now
        tap = self._call.dialect.tap(stream=self._call.stream)
        self.stats = lease.stats = tap.stats
        while data:
            tap.feed(data)
            lease.chunks = tap.stats.chunks
            if response.complete:
                break
            lease.waiting, lease.beat = Waiting.CLIENT, now()
            await answer.write(data, raw)
            lease.waiting, lease.beat = Waiting.BACKEND, now()
            data = await response.receive()
            raw = response.raw
        tap.close()
        lease.close(self._judge(response.status))
        response.release()
        await answer.end_with(data, raw)

    def _judge(self, status: int) -> End:
        stats = self.stats
        self.lease.chunks = stats.chunks
        if stats.error is not None:
            return StreamError(stats.error[:200])
        if stats.output_tokens and stats.output_seconds:
            pair_stats = self.lease.cell.state.stats_of(self.lease.pair.model)
            pair_stats.speed.add(stats.output_tokens / stats.output_seconds)
        if self._call.stream and not stats.finished:
            return Incomplete(status)
        return Completed(status)

    async def _refused(
        self, response: UpstreamResponse, extra: Headers, may_keep: Callable[[Refused], bool]
    ) -> Saved | None:
        """An error status: kept back if another server may do better, else passed on untouched."""
        body, _ = await hold(response, HOLD, self._beat)
        text = error_text(body)
        missing = response.status == 404 and text is not None and self.lease.pair.model != ANY_MODEL
        end = Refused(response.status, text or "", missing)
        if missing:
            self._tell_missing()
        if len(body) < HOLD and may_keep(end):
            self.lease.close(end)
            return Saved(response, body, self.lease.pair.server)
        await self._start(response, extra)
        while body and not response.complete:
            self.lease.waiting, self.lease.beat = Waiting.CLIENT, trio.current_time()
            await self._answer.write(body)
            self.lease.waiting, self.lease.beat = Waiting.BACKEND, trio.current_time()
            body = await response.receive()
        self.lease.close(end)
        await self._answer.end_with(body)
        return None

    def _tell_missing(self) -> None:
        """The inventory was stale, or lies: look again, and while others hold the model, keep away for a while."""
        pair = self.lease.pair
        self.lease.cell.mailbox.cast(ModelMissing(pair.model))
        others = (cell.state for cell in self._fleet.servers.values() if cell is not self.lease.cell)
        if any(state.usable and pair.model in state.models for state in others):
            until = trio.current_time() + _COOLDOWN
            self._fleet.dispatcher.cast(BanPair(pair, "answers that it has no such model", until, cooldown=True))

    def _beat(self) -> None:
        self.lease.beat = trio.current_time()
