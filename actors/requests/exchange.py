"""One request's life, in the caller's task: queue, attempt, stream, report. No byte passes through an actor.

Failover ends at the first byte sent to the client. Every way out, cancellation included, closes the lease, and with it
the slot, the permit of a half-open breaker and the backend connection.
"""

from __future__ import annotations

import math
from typing import Final

import trio

from actors.requests.held_responses import before_first_byte, name_server, refuse_loop
from actors.requests.relay import Passage
from actors.requests.request_context import RequestContext
from actors.requests.response_writer import ResponseWriter, whereabouts
from actors.requests.second_witness import PATIENCE, SecondWitness
from actors.state.lease import Lease
from actors.state.messages import RequestRecord, Submitted, Try, Withdrawn
from actors.state.ticket import PendingTicket
from actors.upstream.pool import UpstreamRequest, UpstreamResponse
from fleet.breakers.outcomes import ClientLeft, Completed, End, Failed, Refused, Revoked, kind, retryable_elsewhere
from fleet.common.errors import (
    BackendBroke,
    BackendError,
    FleetError,
    ModelNotFound,
    NoServer,
    Phase,
    QueueCancelled,
    QueueTimeout,
    RequestCancelled,
    ShuttingDown,
    TotalTimeout,
)
from fleet.common.ids import ANY_MODEL, ServerId
from fleet.observability.tracing.trace_context import without_context
from fleet.protocol.call import Call, ClientGone, Downstream
from fleet.protocol.dialects import missing_model_text
from fleet.protocol.headers import forwarded_headers, own_headers

_FINAL: Final = (TotalTimeout, QueueCancelled, RequestCancelled)
"""What is told to the client even if a server has refused the request before: it ends the request, not the retrying."""


_MOST_TRIES: Final = 32
"""Attempts that a record lists; only a request that comes back from busy servers can have so many."""


class Exchange:
    """Runs one call to its end."""

    def __init__(self, context: RequestContext, call: Call, down: Downstream) -> None:
        self._context = context
        self._config = context.config
        self._servers = context.servers
        self._scheduler = context.scheduler
        self._now = context.clock.now
        self._call = call
        self._answer = ResponseWriter(call, down, context.config.current.timeouts.write)
        self._passing = call.passing or forwarded_headers(call.headers)
        self._trace = None if context.begin_trace is None else context.begin_trace(call)
        self._attempts = 0
        self._place = 0  # the number of the last ticket
        self._back = False  # it goes back to the place that it had in line
        self._sought = False
        self._tries: tuple[Try, ...] = ()
        self._paid = False  # for a retry that has not been granted a server yet
        self._excluded: frozenset[ServerId] = frozenset()
        self._hearing = SecondWitness(context, call)
        self._failure: FleetError | None = None
        self._enqueued = self._now()
        self._deadline = self._enqueued + context.config.current.total_timeout
        self._queued = 0.0
        self._passage: Passage | None = None
        self._running: Lease | None = None
        """The lease of the attempt under way, or of the last one; None while the request waits in line."""

    # What the record says of a request's end is decided here and nowhere else, by what its client has got of it, which
    # is not always what the last server did. An end comes back when an answer has gone out (broken off, perhaps), or
    # when the attempt has found that the client is gone: then that end is the outcome. A FleetError means that nothing
    # has gone out and that our caller will tell the client: then the error is, whatever the attempts before it ended
    # in, and its status is the answer's. ClientGone comes from a refusal that was kept back and found nobody to read
    # it. Everything else that is an Exception is our own fault. And cancelled we are when the client leaves, wherever
    # that finds us: in the queue it has left; in an attempt the lease knows (it has been closed on the way here), since
    # a client that leaves with the last record has got everything. Closing a lease, settling what is owed to breakers,
    # and the record are synchronous, and so happen in a cancelled task too; an await among them would lose the rest.
    async def run(self) -> None:
        """The whole life. Raises FleetError only while nothing has been sent; cancelled: everything is released."""
        self._check_open()
        self._scheduler.budget.request(self._enqueued)
        outcome, status = "client_left", 0
        try:
            outcome = kind(await self._failover())
        except ClientGone:
            pass
        except FleetError as error:
            outcome, status = error.reason.lower(), error.status
            raise
        except Exception:
            outcome = "internal_error"
            raise
        except BaseException:
            if self._running is not None and self._running.end is not None:
                outcome = kind(self._running.end)
            raise
        finally:
            self._hearing.close()
            self._note(outcome, status)

    def _check_open(self) -> None:
        """Raises ShuttingDown, LoopDetected, PoisonousRequest; none gets a place in the history, only in the count."""
        try:
            if self._servers.draining:
                raise _shutting_down()
            refuse_loop(self._context.hop, self._passing.hops)
            if self._hearing.convicted:
                self._hearing.refuse_poison()
        except FleetError as refusal:
            self._context.metrics.called("POST", self._call.endpoint, refusal.status, 0.0)
            raise

    # ---- attempts

    async def _turned_up(self) -> bool:
        """Whether a model that no server listed is there after all; asked once per request."""
        if self._sought or self._attempts:
            return False
        self._sought = True
        found = await self._context.find_model(self._call.model)
        if self._servers.draining:
            raise _shutting_down()
        return found

    async def _failover(self) -> End:
        """Attempt after attempt, each on a server not tried yet, until one ends it; the end of what the client gets."""
        while True:
            try:
                end = await self._queue_and_attempt()
                if self._answer.started or isinstance(end, ClientLeft):
                    return end
                self._failure = self._error_of(end)
                if not self._may_go_on(end):
                    raise self._failure
            except FleetError as refusal:
                if isinstance(refusal, ModelNotFound) and await self._turned_up():
                    continue
                if self._paid:
                    self._scheduler.budget.refund()  # the retry that was paid for found nobody to try
                impatient = isinstance(refusal, QueueTimeout) and self._hearing.patient
                if not self._hearing or impatient or isinstance(refusal, _FINAL):
                    raise self._in_clients_words(refusal) from refusal.__cause__
                self._hearing.close()
                saved = self._hearing.last_word()
                await self._answer.send_whole(saved.response, saved.body, self._our_headers(saved.server))
                return saved.end

    async def _queue_and_attempt(self) -> End:
        """One attempt, as soon as there is a slot. Raises the dispatcher's refusal, QueueTimeout, TotalTimeout."""
        ticket = self._submit()
        self._running = None
        try:
            if ticket.open:  # nearly always it was settled in our own turn
                await self._wait(ticket)
            if ticket.refusal is not None:
                raise ticket.refusal
            if ticket.lease is None:
                raise self._waited_too_long()
            lease = self._running = ticket.lease
            self._attempts += 1
            self._paid = False
            self._excluded |= {lease.pair.server}
            return await self._attempt(lease)
        finally:
            self._settle(ticket)

    def _submit(self) -> PendingTicket:
        call = self._call
        number = self._place if self._back else self._scheduler.next_number()
        missing = self._context.missing_routes.of(call.endpoint)
        ticket = PendingTicket(
            number,
            call.request_id,
            call.model,
            call.priority,
            self._enqueued,
            call.pinned,
            self._excluded | missing if missing else self._excluded,
            call.runs,
            call=call,
            back=self._back,
            alone=self._hearing.suspect,
        )
        self._place, self._back = number, False
        self._scheduler.tickets[number] = ticket
        self._scheduler.mailbox.cast(Submitted(ticket))
        return ticket

    async def _wait(self, ticket: PendingTicket) -> None:
        """Wait until the dispatcher settles it, or all waiting together takes too long."""
        began = self._now()
        limit = self._config.current.timeouts.queue - self._queued
        if self._hearing.doubtful:
            limit = min(limit, PATIENCE)
        with trio.move_on_at(min(began + limit, self._deadline)):
            await ticket.settled()
        self._queued += self._now() - began

    def _waited_too_long(self) -> FleetError:
        if trio.current_time() >= self._deadline:
            return self._out_of_time()
        limit = self._config.current.timeouts.queue
        return QueueTimeout(
            f"no slot became free within {limit:g} s",
            details="the fleet is busy; try again later, or raise timeouts.queue",
            retry_after=5.0,
        )

    def _settle(self, ticket: PendingTicket) -> None:
        """Whatever happened: a granted lease is closed, a waiting ticket withdrawn. Synchronous."""
        lease = ticket.lease
        if lease is not None:
            if lease.end is None:  # cancelled: a client that leaves with the final record has got everything
                all_told = self._passage is not None and self._passage.stats.finished
                lease.close(Completed(self._answer.status) if all_told else ClientLeft())
            assert lease.end is not None
            if len(self._tries) < _MOST_TRIES:
                self._tries += (Try(lease.pair.server, kind(lease.end), lease.started, lease.first_byte, self._now()),)
        elif ticket.open:
            ticket.withdrawn = True
            self._scheduler.tickets.pop(ticket.number, None)
            self._scheduler.mailbox.cast(Withdrawn(ticket))

    async def _attempt(self, lease: Lease) -> End:
        """One backend request under one lease; the lease is closed when this returns.

        An answer that was cut after its start ends visibly: with an error record, or an aborted connection.
        """
        response: UpstreamResponse | None = None
        passage = self._passage = Passage(self._context, self._call, self._answer, lease)
        try:
            lease.answer = self._answer
            response = await self._open(lease)
            saved = await passage.run(response, self._our_headers(lease.pair.server), self._hearing.served)
            if saved is not None:
                self._hearing.hear(saved, lease)
        except BackendError as error:
            name_server(error, lease.cell.pool.endpoint.address, lease.pair.server)
            lease.close(Failed(error if self._answer.started else before_first_byte(error)))
            self._hearing.others_failed = True
        except ClientGone:
            lease.close(ClientLeft())
        finally:
            if response is not None and not response.done:
                response.release()
        end = lease.end
        assert end is not None, "closed by the passage, above, or revoked"
        match end:
            case Completed():
                pass
            case Failed() | Revoked():
                await self._answer.break_off(self._error_of(end))
            case ClientLeft(stalled=True):
                self._answer.cut()
            case _:
                self._hearing.broken_off(end, lease)
        return end

    async def _open(self, lease: Lease) -> UpstreamResponse:
        """Send the request and wait for the head. What limits that is watched from outside, like all of the lease."""
        call, config = self._call, self._config.current
        # A generation that comes in one piece has no early first byte: only the total time limits it.
        early = call.stream or call.embedding or not call.runs
        lease.limit(self._deadline, config.timeouts.first_byte if early else math.inf)
        spec = lease.cell.state.spec
        headers = own_headers(self._passing, api_key=spec.plain_key, request_id=call.request_id, hop=self._context.hop)
        lines = self._passing.lines
        if self._trace is not None:
            headers, lines = headers + self._trace.attempt(), without_context(lines)
        request = UpstreamRequest(call.method, call.target, headers, call.body, call.content_length, lines=lines)
        response = await lease.cell.pool.open(request, connect_timeout=config.timeouts.connect, holder=lease)
        lease.connection = response
        lease.beat = self._now()
        lease.streaming = True
        return response

    def _out_of_time(self) -> TotalTimeout:
        total = self._config.current.total_timeout
        return TotalTimeout(f"the request took longer than {total:g} s", details="see timeouts.total")

    # ---- deciding

    def _may_go_on(self, end: End) -> bool:
        """Whether to try elsewhere, nothing having been sent yet; takes from the fleet-wide retry budget.

        A stale inventory is our mistake, not load on a failing fleet: it costs no budget. Nor does a server that has
        enough to do: that is no failure.
        """
        if self._servers.draining or not self._call.replayable:
            return False
        if isinstance(end, Refused) and end.busy and self._call.runs:
            return self._goes_back()
        if self._call.pinned is not None:
            return False
        if self._attempts >= self._config.current.retry.max_attempts or trio.current_time() >= self._deadline:
            return False
        if not retryable_elsewhere(end) or self._hearing.agreed is not None:
            return False
        if isinstance(end, Refused) and end.missing:
            return True
        open_requests = len(self._scheduler.tickets) + self._servers.in_flight
        self._paid = self._scheduler.budget.spend(trio.current_time(), open_requests)
        return self._paid

    # Back-pressure. The lease has noted that this server takes no more (before its slot was handed on, or the next in
    # line would have had the same answer), so the ticket cannot be granted there again before something has ended
    # there or a back-off has passed, and to ask the same again is no hot loop. How often it may come back is bounded
    # by the time that a request may wait, all its waiting taken together, and by its deadline.
    def _goes_back(self) -> bool:
        """Into the line again, where it was, as if it had never left; False if its time is up."""
        assert self._running is not None
        if trio.current_time() >= self._deadline:
            return False
        self._back = True
        self._attempts -= 1
        self._excluded -= {self._running.pair.server}
        return True

    def _error_of(self, end: End) -> FleetError:
        match end:
            case Revoked(error=FleetError() as error):
                return error
            case Failed() | Revoked() if trio.current_time() >= self._deadline:
                return self._out_of_time()
            case Failed(error=error):
                return error
            case Revoked(why=why) if self._servers.draining:
                return ShuttingDown(f"the request was stopped: {why}", retry_after=2.0)
            case Revoked(why=why):
                return NoServer(f"the request was stopped: {why}", retry_after=2.0)
            case _:
                return BackendBroke("the backend refused the request", Phase.HEADERS)

    def _in_clients_words(self, refusal: FleetError) -> FleetError:
        if isinstance(refusal, NoServer) and self._failure is not None:
            return self._failure  # "nobody is left" says less than what went wrong
        if isinstance(refusal, NoServer) and self._too_old():
            return self._hearing.no_route()
        if isinstance(refusal, ModelNotFound):
            return ModelNotFound(missing_model_text(self._call.endpoint, self._call.asked_model))
        return refusal

    def _too_old(self) -> bool:
        """Whether all servers that list the model lack the endpoint."""
        without, model = self._context.missing_routes.of(self._call.endpoint), self._call.model
        if not without or self._call.pinned is not None:
            return False
        states = [cell.state for cell in self._servers.values()]
        return all(state.id in without for state in states if model in state.models or model == ANY_MODEL)

    def _our_headers(self, server: ServerId) -> list[tuple[bytes, bytes]]:
        return whereabouts(server, self._attempts, self._queued)

    def _note(self, outcome: str, status: int) -> None:
        """One record for history and log; never a word of prompt or answer."""
        passage, now = self._passage, self._now()
        lease = passage.lease if passage else None
        first = lease.first_byte - self._enqueued if lease is not None and lease.first_byte is not None else None
        self._context.request_log.append(
            RequestRecord(
                request_id=self._call.request_id,
                endpoint=self._call.endpoint,
                model=self._call.model,
                client=self._call.client,
                server=lease.pair.server if lease is not None else "",
                outcome=outcome,
                status=self._answer.status or status,
                attempts=self._attempts,
                queue_seconds=self._queued,
                first_byte_seconds=first,
                total_seconds=now - self._enqueued,
                chunks=passage.stats.chunks if passage else 0,
                prompt_tokens=passage.stats.prompt_tokens if passage else None,
                output_tokens=passage.stats.output_tokens if passage else None,
                stream=self._call.stream,
                load_seconds=passage.stats.load_seconds if passage else None,
                runner=self._call.runner,
                tries=self._tries,
                began=self._enqueued,
                trace=self._trace,
                by=self._call.by,
            )
        )


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the fleet is shutting down", details="try again in a moment", retry_after=2.0)
