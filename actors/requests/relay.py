"""One backend's answer on its way through: held, started, relayed piece by piece, judged at its end."""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.requests.held_responses import (
    HOLD,
    HeldResponse,
    error_text,
    hold,
    hold_record,
    page_text,
    retry_after,
)
from actors.requests.model_description import described
from actors.requests.request_context import RequestContext
from actors.requests.response_writer import ResponseWriter
from actors.state.lease import Lease, WaitingFor
from actors.state.messages import BanPair, ModelMissing, Unloads
from actors.upstream.pool import UpstreamResponse
from fleet.breakers.outcomes import REPEATS, Completed, End, Failed, Incomplete, Refused, StreamError
from fleet.common.errors import BackendBroke, BadAnswer, Phase
from fleet.common.ids import ANY_MODEL
from fleet.protocol.answer_check import BLANK, ended, is_error, strange_document, strange_stream
from fleet.protocol.call import Call, Headers
from fleet.protocol.dialects.base import Statistics
from fleet.protocol.endpoints import ALWAYS_THERE, SHOW
from fleet.protocol.refusals import Ground

_LOOK, _TAIL = 64, 4096
"""Bytes at both ends of an answer that tell whether it is whole."""
_COOLDOWN = 60.0
"""Seconds without traffic for a model on a server that says it has no such model though its inventory lists it."""


class Passage:
    """Closes the lease as soon as the outcome is known: what is left to write then holds no slot."""

    def __init__(self, context: RequestContext, call: Call, answer: ResponseWriter, lease: Lease) -> None:
        self.lease = lease
        self.stats = Statistics()
        self._servers, self._scheduler = context.servers, context.scheduler
        self._now = context.clock.now
        self._call = call
        self._answer = answer
        self._opaque = False  # compressed although nobody asked for that

    async def run(self, response: UpstreamResponse, extra: Headers, served: Callable[[], None]) -> HeldResponse | None:
        """Pass the answer on; `served` is called when it is clear that it is one. A refusal that may be another
        server's business is returned instead, with nothing sent, and the lease owes its outcome.

        Raises BackendError (BadAnswer for what is no answer at all), ClientGone. Cancelled: the lease stays open, for
        the caller to close.
        """
        if response.status >= 400:
            body, _ = await hold(response, HOLD, self._beat)
            return await self._refused(response, body, extra)
        if response.status >= 300 or response.status == 206:
            raise self._bad(f"answered {response.status}, which is no answer to this")
        held, raw = await self._hold(response)
        if is_error(held):
            rest = b"" if response.complete else (await hold(response, HOLD, self._beat))[0]
            return await self._refused(response, held + rest, extra)
        self._check(response, held)
        served()
        if self._call.endpoint == SHOW:
            held, raw = await described(response, held, raw, self._beat)
        self.lease.speak(self._now())
        await self._start(response, extra)
        await self._relay(response, held, raw)
        return None

    async def _hold(self, response: UpstreamResponse) -> tuple[bytes, bytes]:
        """The beginning of an answer, by which it is judged: while others could be asked, a bit more of a stream."""
        if not self._call.stream:
            return await hold(response, HOLD, self._beat)
        if self._call.pinned is None and len(self._servers) > 1:
            return await hold_record(response, self._beat)
        return await hold(response, 1, self._beat)

    def _check(self, response: UpstreamResponse, begin: bytes) -> None:
        """Raises BadAnswer if this is not the beginning of an answer to what was asked."""
        call, media, complete = self._call, response.head.media, response.complete
        if response.head.encoded:
            self._opaque = True  # the client may be able to read it
            return
        if call.stream:
            native = call.dialect.name == "native"
            fault = strange_stream(call.endpoint, media, begin, native=native, complete=complete)
        else:
            fault = strange_document(call.endpoint, media, begin, complete=complete)
        if fault:
            raise self._bad(f"answered {response.status} with {fault}")

    def _bad(self, what: str) -> BadAnswer:
        return BadAnswer(f"server '{self.lease.pair.server}' {what}", Phase.HEADERS)

    async def _start(self, response: UpstreamResponse, extra: Headers) -> None:
        """Send the head; a client that does not even take that is watched like one that does not read on."""
        lease, now = self.lease, self._now
        lease.waiting, lease.beat = WaitingFor.HEAD, now()
        await self._answer.start(response, extra)
        lease.waiting, lease.beat = WaitingFor.BACKEND, now()

    # A relay has two sides that end at different times, and what is half-closed in between must belong to somebody.
    #
    # While both run, the server's actor watches, and `waiting` tells it whose silence `beat` measures: both are set
    # before we wait for the other side, and never one without the other, or a slow reader would be counted as a hung
    # server, which opens breakers. When the server has said everything, the last piece is not written yet. Then the
    # lease is closed first, so that a slow reader holds no slot; after that nobody watches, hence `end_with`, which has
    # a limit of its own. The connection goes back before that wait too: whoever gets the slot finds it in the pool. If
    # the client is cancelled away in `end_with`, the request was completed all the same. An answer that turns out to be
    # torn goes the other way round: its last piece is written under the lease, watched like any other, because
    # `write` has no limit; the lease is closed with the failure then, and the exchange tells the client.
    async def _relay(self, response: UpstreamResponse, data: bytes, raw: bytes) -> None:
        """Piece by piece, watched by the tap. Nothing here allocates a task, a scope or a parsed object per piece."""
        answer, lease, now = self._answer, self.lease, self._now
        tap = self._call.dialect.tap(stream=self._call.stream)
        self.stats = lease.stats = tap.stats
        begin, tail = b"", bytearray()
        while data:
            tap.feed(data)
            begin = begin or data[:_LOOK].lstrip(BLANK)
            tail += data[-_TAIL:]
            if len(tail) > 4 * _TAIL:
                del tail[:-_TAIL]
            lease.chunks = tap.stats.chunks
            if response.complete:
                break
            lease.waiting, lease.beat = WaitingFor.CLIENT, now()
            await answer.write(data, raw)
            lease.waiting, lease.beat = WaitingFor.BACKEND, now()
            data = await response.receive()
            raw = response.raw
        tap.close()
        end = self._judge(response.status, begin, bytes(tail[-_TAIL:]))
        if isinstance(end, Failed):  # what has come is passed on, and then it is told that it is not all
            lease.waiting, lease.beat = WaitingFor.CLIENT, now()
            await answer.write(data)
            lease.close(end)
            return
        lease.close(end)
        if self._call.unloads:
            lease.cell.mailbox.cast(Unloads(lease.pair.model))
        elif lease.pair.model not in lease.cell.state.resident and self._call.runs:
            lease.cell.look_for(lease.pair.model)
        response.release()
        await answer.end_with(data, raw)

    def _judge(self, status: int, begin: bytes, tail: bytes) -> End:
        """How the answer ended, by what the tap has seen, its beginning and its end, however that came in pieces."""
        stats = self.stats
        self.lease.chunks = stats.chunks
        if stats.error is not None:
            return StreamError(stats.error[:200])
        if stats.output_tokens and stats.output_seconds:
            pair_stats = self.lease.cell.state.stats_of(self.lease.pair.model)
            pair_stats.speed.add(stats.output_tokens / stats.output_seconds, self._now())
        if stats.finished:
            return Completed(status)
        if self._torn(begin, tail):
            what = f"server '{self.lease.pair.server}' ended its answer before it was complete"
            return Failed(BackendBroke(what, Phase.BODY))
        if not self._call.stream:
            return Completed(status)
        native = self._call.dialect.name == "native" and not self._opaque
        return Incomplete(status, early=native and stats.chunks <= REPEATS)

    def _torn(self, begin: bytes, tail: bytes) -> bool:
        """Whether an answer that came to a clean end without its end mark is only a part of one.

        An event stream is, unless it has told otherwise that it is over: Ollama ends one so when its runner dies, and
        clients take that for success. A native stream is if it ends within a record: after a whole one, Ollama has
        given up on a model that repeats itself, which is no error. An object is if it does not close.
        """
        if self._opaque:
            return False
        is_object = begin.startswith(b"{")
        if self._call.stream and self._call.dialect.name == "native":
            return is_object and not tail.rstrip(b" \t\r").endswith(b"\n")
        return not tail.rstrip().endswith(b"}") if is_object else self._call.stream and not ended(tail)

    async def _refused(self, response: UpstreamResponse, body: bytes, extra: Headers) -> HeldResponse | None:
        """An error, of which `body` is there: kept back if another server may do better, else passed on untouched."""
        text = error_text(body)
        missing = response.status == 404 and text is not None and self.lease.pair.model != ANY_MODEL
        long = not response.complete and body.lstrip().startswith(b"{")  # it may quote the client at length
        said = page_text(body) if text is None else text
        end = Refused(response.status, said, missing, text is not None or long, retry_after(response) or 0.0)
        if end.ground is Ground.ROUTE and self._call.endpoint in ALWAYS_THERE:
            raise self._bad(f"answered {response.status} where every Ollama has a route")
        if missing:
            self._tell_missing()
        if end.ground is not Ground.CLIENT and not long:
            self.lease.close(end, owing=True)
            return HeldResponse(response, body, self.lease.pair.server, end)
        await self._start(response, extra)
        while body and not response.complete:
            self.lease.waiting, self.lease.beat = WaitingFor.CLIENT, trio.current_time()
            await self._answer.write(body)
            self.lease.waiting, self.lease.beat = WaitingFor.BACKEND, trio.current_time()
            body = await response.receive()
        self.lease.close(end)
        await self._answer.end_with(body)
        return None

    def _tell_missing(self) -> None:
        """The inventory was stale, or lies: look again, and while others hold the model, keep away for a while."""
        pair = self.lease.pair
        self.lease.cell.mailbox.cast(ModelMissing(pair.model))
        others = (cell.state for cell in self._servers.values() if cell is not self.lease.cell)
        if any(state.usable and pair.model in state.models for state in others):
            until = trio.current_time() + _COOLDOWN
            self._scheduler.mailbox.cast(BanPair(pair, "answers that it has no such model", until, cooldown=True))

    def _beat(self) -> None:
        self.lease.beat = trio.current_time()
