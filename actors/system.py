"""The whole running fleet: builds the tree of actors and is the handle that web/ talks to."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from actors.dispatch.dispatcher import Dispatcher
from actors.jobs.job import JobContext
from actors.jobs.job_board import JobBoard
from actors.kit.clock import Clock
from actors.kit.mailbox import Promise
from actors.kit.reply import heard
from actors.kit.supervisor import RestartPolicy, keep_up, supervise
from actors.observability.ai_status import StatusWriter
from actors.observability.alert_monitor import Monitor
from actors.observability.dashboard.feed import Feed
from actors.observability.dashboard.live_requests import LiveRequests
from actors.observability.dashboard.sources import FeedSources
from actors.observability.fleet_facts import count_requests
from actors.observability.host.sampler import HostWatch, all_parts
from actors.observability.metrics_feed import note_move
from actors.observability.tracing import Tracer
from actors.observability.watched_fleet import WatchedFleet
from actors.parts import TcpBackends, make_breakers, make_scheduler, make_statistics
from actors.persisted_state import PersistedState, touch_pause
from actors.requests.exchange import Exchange
from actors.requests.pull_stream import pulling
from actors.requests.request_context import RequestContext
from actors.requests.transfer import check_open, transfer, watched
from actors.security.api_keys import ApiKeys
from actors.servers.membership import BackendFactory, Membership
from actors.servers.model_lookup import InventoryLookup
from actors.servers.server_context import ServerContext
from actors.servers.server_tree import cut
from actors.state.config_ref import ConfigRef
from actors.state.estimate_memory import EstimateMemory
from actors.state.lease import LeaseContext
from actors.state.messages import SetAdmin, Withdrawn
from actors.state.queries import FleetQueries
from actors.state.request_log import Listener
from actors.state.request_orders import RequestOrders
from actors.state.servers import ServerCell, Servers
from actors.state.transfer import Transfer
from actors.storage.journal import Journal
from actors.upstream.control_client import OllamaClient
from fleet.breakers.poison import PoisonTable
from fleet.breakers.recovery_log import RecoveryLog
from fleet.common.errors import ShuttingDown
from fleet.common.ids import ModelName, ServerId
from fleet.config import Config, ServerSpec
from fleet.observability.alerting.traffic_facts import Counts
from fleet.observability.tracing.trace_context import Trace
from fleet.protocol.call import Call, Downstream
from fleet.protocol.missing_endpoints import MissingRoutes
from fleet.scheduling.server_state import Order, Row

if TYPE_CHECKING:
    from actors.storage.history.queries import History


class System:
    """Handle on the running fleet: its parts by name, and what may be done with it.

    Here and in `actors.parts` they are made, and each is given those that it uses. Every method without `await` is
    synchronous and safe to call from any task.
    """

    def __init__(
        self,
        config: Config,
        backends: BackendFactory,
        nursery: trio.Nursery,
        clock: Clock,
        journal: Journal,
        tracer: Tracer | None = None,
        listeners: Sequence[Listener] = (),
        history: History | None = None,
    ) -> None:
        self.started = trio.current_time()
        self.clock = clock
        self.journal = journal
        self.config_ref = ref = ConfigRef(config)
        self.keys = ApiKeys()
        self.servers = servers = Servers()
        self.missing_routes = MissingRoutes()
        self.history = history
        """What is kept of finished requests; None: nothing is."""
        self._poison = PoisonTable(secrets.token_bytes(32))
        self._counts, self.live_requests = Counts(), LiveRequests()
        self.statistics = make_statistics(ref, clock, servers, journal, (*self._watching(tracer), *listeners))
        self.scheduler = scheduler = make_scheduler(config, journal, self.statistics.metrics)
        self.recovery_log = RecoveryLog(told=partial(note_move, self.statistics.metrics))
        self.breakers = make_breakers(ref, clock, servers, scheduler.mailbox, self.recovery_log, journal)
        self.model_lookup = InventoryLookup(servers, clock.now)
        self.queries = FleetQueries(ref, clock, scheduler, servers)
        self.orders = RequestOrders(scheduler, servers)
        self._leases = LeaseContext(clock, scheduler, servers, self.breakers)
        self._requests = self._request_context(None if tracer is None else tracer.begin)
        self.membership = Membership(self._server_context(), backends, nursery)
        self.persisted_state = PersistedState(clock, scheduler, servers, self.breakers, journal)
        self._estimate_memory = EstimateMemory(clock, scheduler.expectations, servers, journal)
        self.jobs = JobBoard(JobContext(ref, clock, servers, self.statistics.load_times), journal)
        for follower in (self.breakers.follow, servers.follow, scheduler.follow):
            ref.follow(follower)
        self._make_watchers()

    def _watching(self, tracer: Tracer | None) -> Iterator[Listener]:
        """Those who watch the fleet and are told of finished requests."""
        yield partial(count_requests, self._counts, self.clock.now)
        yield self.live_requests.note
        if tracer is not None:
            yield partial(tracer.note, self.servers)
        if self.history is not None:
            self.config_ref.follow(self.history.recorder.follow)
            yield self.history.recorder.note

    def _request_context(self, begin_trace: Callable[[Call], Trace] | None) -> RequestContext:
        return RequestContext(
            config=self.config_ref,
            clock=self.clock,
            scheduler=self.scheduler,
            servers=self.servers,
            request_log=self.statistics.request_log,
            metrics=self.statistics.metrics,
            missing_routes=self.missing_routes,
            poison=self._poison,
            find_model=self.model_lookup.find,
            hop=secrets.token_hex(8).encode(),
            begin_trace=begin_trace,
        )

    def _server_context(self) -> ServerContext:
        return ServerContext(
            config=self.config_ref,
            clock=self.clock,
            scheduler=self.scheduler,
            servers=self.servers,
            breakers=self.breakers,
            journal=self.journal,
            model_loads=self.statistics.metrics.loads,
            missing_routes=self.missing_routes,
            recovery_log=self.recovery_log,
        )

    def _make_watchers(self) -> None:
        fleet = WatchedFleet(self.config_ref, self.clock, self.scheduler, self.servers, self.statistics, self.journal)
        parts = all_parts(self.clock.now, lambda: self.journal.standing.path)
        self.watched_fleet = fleet
        self.host = HostWatch(self.config_ref, self.clock, parts)
        self.monitor = Monitor(fleet, self.breakers, self.host, self._counts)
        self.status_writer = StatusWriter(fleet, self.monitor, self.exchange)
        self.feed = Feed(
            FeedSources(
                fleet=fleet,
                breakers=self.breakers,
                host=self.host,
                monitor=self.monitor,
                status_writer=self.status_writer,
                jobs=self.jobs,
                live=self.live_requests,
                started=self.started,
            )
        )

    # ---- what is so now

    @property
    def config(self) -> Config:
        """The settings in effect."""
        return self.config_ref.current

    @property
    def draining(self) -> bool:
        return self.servers.draining

    @property
    def uptime(self) -> float:
        return trio.current_time() - self.started

    @property
    def in_flight(self) -> int:
        return self.servers.in_flight

    def cell(self, server: ServerId) -> ServerCell:
        """One server; raises ServerNotFound."""
        return self.servers.cell(server)

    def client(self, server: ServerId) -> OllamaClient:
        return self.servers.cell(server).client

    async def find(self, model: ModelName) -> bool:
        """Whether any server lists the model; if none does, after a look at them all. See `servers.model_lookup`."""
        return await self.model_lookup.find(model)

    # ---- requests

    def exchange(self, call: Call, down: Downstream) -> Coroutine[Any, Any, None]:
        """The whole life of one inference request; see `Exchange.run`."""
        return Exchange(self._requests, call, down).run()

    async def relay_to(self, server: ServerId, call: Call, down: Downstream) -> None:
        """Forward one management call to one server; see `transfer`."""
        await transfer(self._requests, self.cell(server), call, down)

    def watched(self, server: ServerId) -> AbstractContextManager[Transfer]:
        """A block of control work on one server that may last long; see `actors.requests.transfer.watched`."""
        return watched(self.servers, self.cell(server))

    def pulling(self, server: ServerId, body: Mapping[str, object]) -> AbstractAsyncContextManager[AsyncIterator[Row]]:
        """A running pull on one server; see `actors.requests.pull_stream.pulling`."""
        return pulling(self.cell(server), body, self.config.timeouts.connect)

    def check_open(self) -> None:
        """Raises ShuttingDown while the fleet drains."""
        check_open(self.servers)

    # ---- orders

    def add_server(self, spec: ServerSpec) -> ServerCell:
        """Start to use a server. Raises Conflict when the id or an equivalent URL is taken."""
        return self.membership.add(spec)

    async def remove_server(self, server: ServerId, *, drain: bool = True) -> None:
        """Stop using a server, after its open requests ended (at most `drain_timeout`).

        Raises ServerNotFound, Conflict and NoAnswer. Cancelled: the removal goes on without the caller.
        """
        await self.membership.remove(server, drain=drain)

    def change_server(self, spec: ServerSpec) -> ServerCell:
        """Another description of a server; what runs on it goes on. Raises ServerNotFound, Conflict."""
        return self.membership.change(spec)

    def order(self, server: ServerId, order: Order, why: str, by: str = "", until: float = math.inf) -> None:
        """Drain, activate or maintain a server; a maintenance ends by itself at `until`."""
        self.cell(server).mailbox.cast(SetAdmin(order, why, by, until))

    async def ordered(self, server: ServerId, order: Order, why: str, by: str, until: float = math.inf) -> None:
        """The same, and wait until the server's actor has done it.

        Raises Conflict while it leaves, and NoAnswer if it has not done it in time; an actor that is down does it when
        it is back. Cancelled: the order stands.
        """
        cell = self.membership.staying(server)
        done = Promise[None]()
        cell.mailbox.cast(SetAdmin(order, why, by, until, done))
        await heard(done, f"server '{server}'")

    def pause(self, paused: bool) -> None:
        """Let everybody wait, or go on."""
        self.orders.pause(paused)

    def refresh(self, server: ServerId) -> None:
        """Probe now."""
        self.cell(server).probe_now.set()

    async def probe(self, server: ServerId, within: float) -> None:
        """Probe now and wait for the verdict, at most `within` seconds."""
        cell = self.cell(server)
        probed = cell.probed
        cell.probe_now.set()
        with trio.move_on_after(within):
            await probed.wait()

    def drain(self) -> None:
        """Refuse new work; what waits is refused too, what runs goes on."""
        self.servers.drain()
        for ticket in list(self.scheduler.tickets.values()):
            if ticket.open:
                self.scheduler.tickets.pop(ticket.number, None)
                ticket.refuse(ShuttingDown("the fleet is shutting down", retry_after=2.0))
                self.scheduler.mailbox.cast(Withdrawn(ticket))

    async def drained(self) -> None:
        """Returns when no request is open any more."""
        while self.in_flight or any(cell.transfers for cell in self.servers.values()):
            await self.servers.ended.park()

    def revoke_all(self, why: str) -> None:
        """End every open request now; streams get their error record."""
        for cell in self.servers.values():
            cut(cell, why)

    # ---- the tree

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the fleet-wide actors until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.breakers.run)
            steady = RestartPolicy(restarts=20, within=60.0)
            nursery.start_soon(keep_up, "request log", self.statistics.request_log.run)
            nursery.start_soon(keep_up, "totals", self.statistics.totals.run)
            nursery.start_soon(keep_up, "model lookup", self.model_lookup.run)
            nursery.start_soon(partial(supervise, "dispatcher", self._run_dispatcher, steady))
            await nursery.start(self.jobs.run)
            self.membership.start()
            self.persisted_state.restore()
            self._estimate_memory.restore()
            if (writer := self.journal.writer) is not None:
                nursery.start_soon(keep_up, "store", writer.run)
                nursery.start_soon(keep_up, "estimates", self._estimate_memory.run)
            if self.history is not None:
                nursery.start_soon(keep_up, "history", self.history.recorder.run)
            task_status.started()

    async def watch(self) -> None:
        """Watch over the fleet until cancelled; who serves it runs this beside."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_up, "host", self.host.run)
            nursery.start_soon(keep_up, "monitor", self.monitor.run)
            nursery.start_soon(keep_up, "AI status", self.status_writer.run)
            nursery.start_soon(keep_up, "feed", self.feed.run)

    async def _run_dispatcher(self) -> None:
        await Dispatcher(self.config_ref, self._leases, partial(touch_pause, self.journal)).run()


@asynccontextmanager
async def open_system(
    config: Config,
    *,
    backends: BackendFactory | None = None,
    seed: int | None = None,
    journal: Journal | None = None,
    clock: Clock | None = None,
    tracer: Tracer | None = None,
    listeners: Sequence[Listener] = (),
    history: History | None = None,
) -> AsyncIterator[System]:
    """Build the tree and run it while the block is open. Leaving the block revokes what is still open.

    `clock`: one that was made before, else one whose dice begin at `seed`. `tracer` traces requests, `listeners` hear
    of those that have ended, and `history` keeps them.
    """
    clock, journal = clock or Clock(seed), journal or Journal()
    async with trio.open_nursery() as nursery:
        system = System(config, backends or TcpBackends(), nursery, clock, journal, tracer, listeners, history)
        await nursery.start(system.run)
        try:
            yield system
        finally:
            system.drain()  # before anything is revoked, or the slots would go to those who wait
            system.revoke_all("the fleet stops")
            nursery.cancel_scope.cancel()
            system.statistics.request_log.flush()
