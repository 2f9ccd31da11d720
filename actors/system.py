"""The whole running fleet: builds the tree of actors and is the handle that web/ talks to."""

from __future__ import annotations

import math
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio

from actors.breakers.recovery_probe import ModelTester
from actors.breakers.registry import BreakerRegistry, RecoveryTester
from actors.dispatch.dispatcher import Dispatcher, rules_of
from actors.dispatch.load_learning import learn_from
from actors.jobs.job_board import JobBoard
from actors.kit.clock import Clock
from actors.kit.mailbox import Mailbox, Promise
from actors.kit.reply import heard
from actors.kit.supervisor import RestartPolicy, keep_up, supervise
from actors.observability.ai_status import StatusWriter
from actors.observability.alert_monitor import Monitor
from actors.observability.dashboard.feed import Feed
from actors.observability.dashboard.sources import FeedSources
from actors.observability.host.sampler import HostWatch
from actors.observability.metrics_feed import Listed, measure, note_move
from actors.persisted_state import PersistedState, touch_ban, touch_breaker
from actors.requests.exchange import Exchange
from actors.requests.pull_stream import pulling
from actors.requests.transfer import check_open, transfer, watched
from actors.security.api_keys import ApiKeys
from actors.servers.membership import BackendFactory, Membership
from actors.servers.model_lookup import InventoryLookup
from actors.servers.server_tree import cut
from actors.state.config_ref import ConfigRef
from actors.state.fleet_state import FleetCell
from actors.state.messages import DispatcherMail, GateMoved, SetAdmin, Withdrawn
from actors.state.queries import FleetQueries
from actors.state.request_log import RequestLog
from actors.state.request_orders import RequestOrders
from actors.state.request_statistics import RequestStatistics
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import ServerCell, Servers
from actors.state.totals import Totals
from actors.state.transfer import Transfer
from actors.storage.journal import Journal
from actors.upstream.control_client import OllamaClient
from actors.upstream.pool import BackendAddress, Pool
from fleet.breakers.gate import Gate
from fleet.breakers.recovery_log import RecoveryLog
from fleet.breakers.state_machine import BreakerSettings
from fleet.common.errors import ShuttingDown
from fleet.common.ids import Pair, ServerId
from fleet.config import Config, ServerSpec
from fleet.observability.metrics.registry import MetricsRegistry
from fleet.protocol.call import Call, Downstream
from fleet.scheduling.bans import Bans
from fleet.scheduling.rates import RetryBudget
from fleet.scheduling.scheduler.decisions import SchedulerMemory
from fleet.scheduling.server_state import Order, Row
from fleet.security.rate_limit import Limiter


class TcpBackends:
    """Real backends."""

    def pool(self, spec: ServerSpec) -> Pool:
        clock = trio.lowlevel.current_clock().current_time
        return Pool(BackendAddress.parse(spec.url), max_idle=max(64, spec.max_concurrency), clock=clock)

    def client(self, spec: ServerSpec) -> OllamaClient:
        return OllamaClient(spec)


class _Gates:
    """Where breakers hang their gates: into the server's state, read by the dispatcher."""

    def __init__(self, servers: Mapping[ServerId, ServerCell]) -> None:
        self._servers = servers

    def set_gate(self, pair: Pair, gate: Gate | None) -> None:
        cell = self._servers.get(pair.server)
        if cell is None:
            return
        if gate is None:
            cell.state.gates.pop(pair.model, None)
        else:
            cell.state.gates[pair.model] = gate


def _make_cells(
    config: Config, clock: Clock, journal: Journal, servers: Servers, lookup: InventoryLookup, tester: RecoveryTester
) -> tuple[FleetCell, BreakerRegistry]:
    """What outlives every actor."""
    dispatcher = Mailbox[DispatcherMail]("dispatcher")
    statistics = RequestStatistics(
        RequestLog(),
        Totals(clock.now, clock.wall, journal),
        MetricsRegistry(Listed(servers, clock.now), began=clock.wall()),
    )
    recovery_log = RecoveryLog(told=partial(note_move, statistics.metrics))
    breakers = BreakerRegistry(
        BreakerSettings.from_config(config.circuit_breaker),
        gates=_Gates(servers),
        on_change=lambda pair: dispatcher.cast(GateMoved(pair)),
        rng=clock.chance,
        enabled=config.enable_circuit_breaker,
        tester=tester,
        book=recovery_log,
        on_move=partial(touch_breaker, journal),
    )
    ref = ConfigRef(config)
    fleet = FleetCell(
        config=ref,
        clock=clock,
        scheduler=_make_scheduler(config, dispatcher, journal),
        breakers=breakers,
        statistics=statistics,
        servers=servers,
        model_lookup=lookup,
        hop=secrets.token_hex(8).encode(),
        journal=journal,
        recovery_log=recovery_log,
    )
    learn_from(fleet)
    statistics.request_log.listeners.append(statistics.totals.note)
    measure(fleet)
    for follower in (breakers.follow, servers.follow, fleet.scheduler.follow):
        ref.follow(follower)
    return fleet, breakers


def _make_scheduler(config: Config, mailbox: Mailbox[DispatcherMail], journal: Journal) -> SchedulerState:
    return SchedulerState(
        mailbox,
        SchedulerMemory.fresh(rules_of(config)),
        RetryBudget(config.retry.budget_ratio, config.retry.budget_floor),
        Bans(changed=partial(touch_ban, journal)),
    )


class System(FleetQueries):
    """Handle on the running fleet. Every method without `await` is synchronous and safe to call from any task."""

    def __init__(
        self, config: Config, backends: BackendFactory, nursery: trio.Nursery, clock: Clock, journal: Journal
    ) -> None:
        self.started = trio.current_time()
        servers = Servers()
        self.keys = ApiKeys()
        self.limiters: Mapping[str, Limiter] = defaultdict(Limiter)
        """What clients have left of their rate limits, by listener."""
        self.model_lookup = InventoryLookup(servers, clock.now)
        tester = ModelTester(servers, lambda: self.config.health.ps_timeout)
        self.fleet, self.breakers = _make_cells(config, clock, journal, servers, self.model_lookup, tester)
        self.clock, self.journal, self.config_ref = clock, journal, self.fleet.config
        self.scheduler, self.statistics = self.fleet.scheduler, self.fleet.statistics
        self.recovery_log, self.missing_routes = self.fleet.recovery_log, self.fleet.missing_routes
        self.membership = Membership(self.fleet, self.breakers, backends, nursery)
        self.persisted_state = PersistedState(self.fleet, self.breakers)
        self.jobs = JobBoard(self.fleet)
        self.orders = RequestOrders(self.fleet)
        self.host = HostWatch(self.fleet)
        self.monitor = Monitor(self.fleet, self.breakers, self.host)
        self.status_writer = StatusWriter(self.fleet, self.monitor, self.exchange)
        self.feed = Feed(
            FeedSources(self.fleet, self.breakers, self.host, self.monitor, self.status_writer, self.jobs, self.started)
        )

    # ---- requests

    def exchange(self, call: Call, down: Downstream) -> Coroutine[Any, Any, None]:
        """The whole life of one inference request; see `Exchange.run`."""
        return Exchange(self.fleet, call, down).run()

    async def relay_to(self, server: ServerId, call: Call, down: Downstream) -> None:
        """Forward one management call to one server; see `transfer`."""
        await transfer(self.fleet, self.cell(server), call, down)

    def watched(self, server: ServerId) -> AbstractContextManager[Transfer]:
        """A block of control work on one server that may last long; see `actors.requests.transfer.watched`."""
        return watched(self.fleet, self.cell(server))

    def pulling(self, server: ServerId, body: Mapping[str, object]) -> AbstractAsyncContextManager[AsyncIterator[Row]]:
        """A running pull on one server; see `actors.requests.pull_stream.pulling`."""
        return pulling(self.cell(server), body, self.config.timeouts.connect)

    def check_open(self) -> None:
        """Raises ShuttingDown while the fleet drains."""
        check_open(self.fleet)

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
        self.fleet.servers.draining = True
        for ticket in list(self.fleet.scheduler.tickets.values()):
            if ticket.open:
                self.fleet.scheduler.tickets.pop(ticket.number, None)
                ticket.refuse(ShuttingDown("the fleet is shutting down", retry_after=2.0))
                self.fleet.scheduler.mailbox.cast(Withdrawn(ticket))

    async def drained(self) -> None:
        """Returns when no request is open any more."""
        while self.in_flight or any(cell.transfers for cell in self.fleet.servers.values()):
            await self.fleet.servers.ended.park()

    def revoke_all(self, why: str) -> None:
        """End every open request now; streams get their error record."""
        for cell in self.fleet.servers.values():
            cut(cell, why)

    # ---- the tree

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the fleet-wide actors until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.breakers.run)
            steady = RestartPolicy(restarts=20, within=60.0)
            nursery.start_soon(keep_up, "recorder", self.fleet.statistics.request_log.run)
            nursery.start_soon(keep_up, "tally", self.fleet.statistics.totals.run)
            nursery.start_soon(keep_up, "lookout", self.model_lookup.run)
            nursery.start_soon(partial(supervise, "dispatcher", self._run_dispatcher, steady))
            await nursery.start(self.jobs.run)
            self.membership.start()
            self.persisted_state.restore()
            if (keeper := self.fleet.journal.keeper) is not None:
                nursery.start_soon(keep_up, "store", keeper.run)
            task_status.started()

    async def watch(self) -> None:
        """Watch over the fleet until cancelled; who serves it runs this beside."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_up, "host", self.host.run)
            nursery.start_soon(keep_up, "monitor", self.monitor.run)
            nursery.start_soon(keep_up, "scribe", self.status_writer.run)
            nursery.start_soon(keep_up, "feed", self.feed.run)

    async def _run_dispatcher(self) -> None:
        await Dispatcher(self.fleet).run()


@asynccontextmanager
async def open_system(
    config: Config,
    *,
    backends: BackendFactory | None = None,
    seed: int | None = None,
    journal: Journal | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[System]:
    """Build the tree and run it while the block is open. Leaving the block revokes what is still open.

    `clock`: one that was made before, else one whose dice begin at `seed`.
    """
    async with trio.open_nursery() as nursery:
        system = System(config, backends or TcpBackends(), nursery, clock or Clock(seed), journal or Journal())
        await nursery.start(system.run)
        try:
            yield system
        finally:
            system.drain()  # before anything is revoked, or the slots would go to those who wait
            system.revoke_all("the fleet stops")
            nursery.cancel_scope.cancel()
            system.statistics.request_log.flush()
