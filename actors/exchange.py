"""One request's life, in the caller's task: queue, attempt, stream, report. No byte passes through an actor.

Failover ends at the first byte sent to the client. Every way out, cancellation included, closes the lease, and with it
the slot, the permit of a half-open breaker and the backend connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import trio

from actors.answer import Answer
from actors.cells import FleetCell
from actors.lease import Lease, Waiting
from actors.messages import ModelMissing, Record, Submitted, Withdrawn
from actors.ticket import PendingTicket
from actors.transport import UpstreamRequest
from fleet.call import Call, ClientGone, Downstream
from fleet.dialects import missing_model_text
from fleet.dialects.base import Statistics
from fleet.errors import (
    BackendBroke,
    BackendError,
    FirstByteTimeout,
    FleetError,
    ModelNotFound,
    NoServer,
    Phase,
    QueueTimeout,
    ShuttingDown,
    TotalTimeout,
)
from fleet.headers import upstream_headers
from fleet.ids import ANY_MODEL, ServerId
from fleet.outcomes import (
    ClientLeft,
    Completed,
    End,
    Failed,
    Incomplete,
    Refused,
    Revoked,
    StreamError,
    kind,
    retryable_elsewhere,
)

if TYPE_CHECKING:
    from actors.transport import UpstreamResponse

_HOLD = 64 * 1024
"""Most bytes of an answer held back (error bodies, short answers) so that another server may still be tried."""


@dataclass(slots=True)
class Saved:
    """A backend's error response, kept for the case that nobody else does better."""

    response: UpstreamResponse
    body: bytes
    server: ServerId


class Exchange:
    """Runs one call to its end."""

    def __init__(self, fleet: FleetCell, call: Call, down: Downstream) -> None:
        self._fleet = fleet
        self._call = call
        self._answer = Answer(call, down)
        self._attempts = 0
        self._excluded: frozenset[ServerId] = frozenset()
        self._saved: Saved | None = None
        self._failure: FleetError | None = None
        self._enqueued = trio.current_time()
        self._deadline = self._enqueued + fleet.config.total_timeout
        self._queued = 0.0
        self._lease: Lease | None = None
        self._outcome = "client_left"
        self._stats: Statistics | None = None

    async def run(self) -> None:
        """The whole life. Raises FleetError only while nothing has been sent; cancelled: everything is released."""
        if self._fleet.draining:
            raise ShuttingDown("the fleet is shutting down", details="try again in a moment", retry_after=2.0)
        self._fleet.budget.request(self._enqueued)
        try:
            with trio.move_on_at(self._deadline) as budget:
                await self._failover()
            if budget.cancelled_caught:
                await self._out_of_time()
        except ClientGone:
            self._outcome = "client_left"
        except FleetError as error:
            self._outcome = error.reason.lower()
            raise
        finally:
            self._note()

    # ---- attempts

    async def _failover(self) -> None:
        """Attempt after attempt, each on a server not tried yet, until one ends it."""
        while True:
            try:
                end = await self._queue_and_attempt()
            except FleetError as refusal:
                if self._saved is None:
                    raise self._in_clients_words(refusal) from refusal.__cause__
                await self._send_saved(self._saved)
                return
            if end is None:
                return

    async def _queue_and_attempt(self) -> End | None:
        """One attempt. None: the call has ended. An End: try the next server."""
        ticket = self._submit()
        try:
            lease = await self._wait(ticket)
            end = await self._attempt(lease)
        finally:
            self._settle(ticket)
        self._outcome = kind(end)
        if self._answer.started or isinstance(end, ClientLeft):
            return None
        self._failure = self._error_of(end)
        if not self._may_go_on(end, lease.pair.server):
            raise self._failure
        return end

    def _submit(self) -> PendingTicket:
        call = self._call
        number = self._fleet.next_number()
        ticket = PendingTicket(
            number, call.request_id, call.model, call.priority, self._enqueued, call.pinned, self._excluded, call=call
        )
        self._fleet.tickets[number] = ticket
        self._fleet.dispatcher.cast(Submitted(ticket))
        return ticket

    async def _wait(self, ticket: PendingTicket) -> Lease:
        """The lease, or what the dispatcher refused with; QueueTimeout when it takes too long."""
        began = trio.current_time()
        limit = self._fleet.config.timeouts.queue
        with trio.move_on_after(limit):
            await ticket.event.wait()
        self._queued += trio.current_time() - began
        if ticket.refusal is not None:
            raise ticket.refusal
        if ticket.lease is None:
            raise QueueTimeout(
                f"no slot became free within {limit:g} s",
                details="the fleet is busy; try again later, or raise timeouts.queue",
                retry_after=5.0,
            )
        self._attempts += 1
        if self._attempts > 1:
            self._fleet.budget.spend(trio.current_time())
        self._lease = ticket.lease
        return ticket.lease

    def _settle(self, ticket: PendingTicket) -> None:
        """Whatever happened: a granted lease is closed, a waiting ticket withdrawn. Synchronous."""
        if ticket.lease is not None:
            ticket.lease.close(self._cancelled_end(ticket.lease))
        elif ticket.open:
            ticket.withdrawn = True
            self._fleet.tickets.pop(ticket.number, None)
            self._fleet.dispatcher.cast(Withdrawn(ticket))

    def _cancelled_end(self, lease: Lease) -> End:
        """How an attempt ended that nobody closed: the client left, or the request used up its total time."""
        if trio.current_time() < self._deadline:
            return ClientLeft()
        if lease.first_byte is None:
            return Failed(FirstByteTimeout(f"{lease.pair.server}: no answer within the total time", Phase.HEADERS))
        return Revoked("total timeout")

    async def _attempt(self, lease: Lease) -> End:
        """One backend request under one lease; the lease is closed when this returns."""
        response: UpstreamResponse | None = None
        try:
            with lease.scope:
                response = await self._open(lease)
                lease.close(await self._pass_on(lease, response))
        except BackendError as error:
            lease.close(Failed(error if self._answer.started else _before_first_byte(error)))
        except ClientGone:
            lease.close(ClientLeft())
        finally:
            if response is not None:
                response.release()
        end = lease.end
        assert end is not None, "closed above, or revoked"
        await self._break_off_if_cut(end)
        return end

    async def _open(self, lease: Lease) -> UpstreamResponse:
        call, timeouts = self._call, self._fleet.config.timeouts
        spec = lease.cell.state.spec
        key = spec.api_key.get_secret_value() if spec.api_key else None
        headers = upstream_headers(call.headers, api_key=key, request_id=call.request_id)
        request = UpstreamRequest(call.method, call.target, headers, call.body, call.content_length)
        # An answer that comes in one piece has no early first byte: only the total time limits it.
        first_byte = timeouts.first_byte if call.stream else self._fleet.config.total_timeout
        response = await lease.cell.pool.open(request, connect_timeout=timeouts.connect, first_byte_timeout=first_byte)
        lease.connection = response
        lease.beat = trio.current_time()
        lease.streaming = True
        return response

    # ---- the answer

    async def _pass_on(self, lease: Lease, response: UpstreamResponse) -> End:
        if response.status >= 400:
            return await self._refused(lease, response)
        held = await _hold(response, 1 if self._call.stream else _HOLD)
        lease.first_byte = trio.current_time()
        await self._answer.start(response, self._our_headers(lease.pair.server))
        return await self._relay(lease, response, held)

    async def _relay(self, lease: Lease, response: UpstreamResponse, data: bytes) -> End:
        """Piece by piece, watched by the tap. Nothing here allocates a task, a scope or a parsed object per piece."""
        answer, now = self._answer, trio.current_time
        tap = self._call.dialect.tap(stream=self._call.stream)
        self._stats = tap.stats
        while data:
            tap.feed(data)
            lease.chunks = tap.stats.chunks
            lease.waiting, lease.beat = Waiting.CLIENT, now()
            await answer.write(data)
            lease.waiting, lease.beat = Waiting.BACKEND, now()
            data = await response.receive()
        tap.close()
        lease.waiting, lease.beat = Waiting.CLIENT, now()
        await answer.finish()
        return self._judge(lease, response.status, tap.stats)

    def _judge(self, lease: Lease, status: int, stats: Statistics) -> End:
        lease.chunks = stats.chunks
        if stats.error is not None:
            return StreamError(stats.error[:200])
        if stats.output_tokens and stats.output_seconds:
            lease.cell.state.stats_of(lease.pair.model).speed.add(stats.output_tokens / stats.output_seconds)
        if self._call.stream and not stats.finished:
            return Incomplete(status)
        return Completed(status)

    async def _refused(self, lease: Lease, response: UpstreamResponse) -> End:
        """An error status: kept back if another server may do better, else passed on untouched."""
        body = await _hold(response, _HOLD)
        text = _error_text(body)
        missing = response.status == 404 and text is not None and lease.pair.model != ANY_MODEL
        end = Refused(response.status, text or "", missing)
        if missing:
            lease.cell.mailbox.cast(ModelMissing(lease.pair.model))
        if len(body) < _HOLD and retryable_elsewhere(end) and self._could_go_on():
            self._saved = Saved(response, body, lease.pair.server)
            return end
        lease.waiting = Waiting.CLIENT
        await self._answer.start(response, self._our_headers(lease.pair.server))
        while body:
            lease.beat = trio.current_time()
            await self._answer.write(body)
            body = await response.receive()
        await self._answer.finish()
        return end

    async def _send_saved(self, saved: Saved) -> None:
        """Nobody did better: the first server's own words, status and all."""
        await self._answer.start(saved.response, self._our_headers(saved.server))
        await self._answer.write(saved.body)
        await self._answer.finish()

    async def _break_off_if_cut(self, end: End) -> None:
        """An answer that was cut after its start ends visibly: in-band error, or an aborted connection."""
        if not self._answer.started:
            return
        try:
            match end:
                case Failed(error=error):
                    await self._answer.break_off(error)
                case Revoked(why=why):
                    await self._answer.break_off(ShuttingDown(f"the request was stopped: {why}"))
                case ClientLeft(stalled=True):
                    await self._answer.abort()
        except ClientGone:
            return

    async def _out_of_time(self) -> None:
        total = self._fleet.config.total_timeout
        error = TotalTimeout(f"the request took longer than {total:g} s", details="see timeouts.total")
        self._outcome = "total_timeout"
        if not self._answer.started:
            raise error
        await self._answer.break_off(error)

    # ---- deciding

    def _could_go_on(self) -> bool:
        """Whether another attempt is allowed at all; does not spend anything."""
        if self._fleet.draining or not self._call.replayable or self._call.pinned is not None:
            return False
        return self._attempts < self._fleet.config.retry.max_attempts

    def _may_go_on(self, end: End, server: ServerId) -> bool:
        """Whether to try elsewhere, nothing having been sent yet; kept within the fleet-wide retry budget."""
        if not self._could_go_on() or not (retryable_elsewhere(end) or isinstance(end, Revoked | Failed)):
            return False
        self._excluded |= {server}
        return self._fleet.budget.allows(trio.current_time())

    def _error_of(self, end: End) -> FleetError:
        match end:
            case Failed(error=error):
                return error
            case Revoked(why=why):
                return ShuttingDown(f"the request was stopped: {why}", retry_after=2.0)
            case _:
                return BackendBroke("the backend refused the request", Phase.HEADERS)

    def _in_clients_words(self, refusal: FleetError) -> FleetError:
        if isinstance(refusal, ModelNotFound):
            return ModelNotFound(missing_model_text(self._call.endpoint, self._call.asked_model))
        if isinstance(refusal, NoServer) and self._failure is not None:
            return self._failure  # "nobody is left" says less than what went wrong
        return refusal

    def _our_headers(self, server: ServerId) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-fleet-server", server.encode()),
            (b"x-fleet-attempts", b"%d" % self._attempts),
            (b"x-fleet-queue-ms", b"%d" % round(self._queued * 1000)),
        ]

    # ---- reporting

    def _note(self) -> None:
        lease, stats, now = self._lease, self._stats, trio.current_time()
        first = lease.first_byte - self._enqueued if lease is not None and lease.first_byte is not None else None
        self._fleet.recorder.note(
            Record(
                request_id=self._call.request_id,
                endpoint=self._call.endpoint,
                model=self._call.model,
                server=lease.pair.server if lease is not None else "",
                outcome=self._outcome,
                status=self._answer.status,
                attempts=self._attempts,
                queue_seconds=self._queued,
                first_byte_seconds=first,
                total_seconds=now - self._enqueued,
                chunks=stats.chunks if stats else 0,
                prompt_tokens=stats.prompt_tokens if stats else None,
                output_tokens=stats.output_tokens if stats else None,
                stream=self._call.stream,
            )
        )


async def _hold(response: UpstreamResponse, most: int) -> bytes:
    """Body bytes until the end or until at least `most` are there."""
    data = await response.receive()
    if len(data) >= most or not data:
        return data
    pieces = [data]
    held = len(data)
    while held < most and (piece := await response.receive()):
        pieces.append(piece)
        held += len(piece)
    return b"".join(pieces)


def _before_first_byte(error: BackendError) -> BackendError:
    """A body that breaks before anything reached the client is, to the client, an answer that never began."""
    if error.phase is Phase.BODY:
        error.phase = Phase.HEADERS
    return error


def _error_text(body: bytes) -> str | None:
    """The text of a JSON error of any dialect; None if the body is not one (a 404 page, say)."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error[:500] if isinstance(error, str) else None
