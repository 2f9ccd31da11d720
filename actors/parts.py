"""How the parts of a fleet are put together that outlive its actors; `actors.system` hands each to who needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import trio

from actors.breakers.recovery_probe import ModelTester
from actors.breakers.registry import BreakerRegistry
from actors.dispatch.dispatcher import rules_of
from actors.dispatch.load_learning import LoadLearner
from actors.kit.clock import Clock
from actors.kit.mailbox import Mailbox
from actors.observability.metrics_feed import Listed, MetricsFeed
from actors.persisted_state import touch_ban, touch_breaker
from actors.state.config_ref import ConfigRef
from actors.state.messages import DispatcherMail, GateMoved
from actors.state.request_log import Listener, RequestLog
from actors.state.request_statistics import RequestStatistics
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import ServerCell, Servers
from actors.state.totals import Totals
from actors.storage.journal import Journal
from actors.upstream.control_client import OllamaClient
from actors.upstream.pool import BackendAddress, Pool
from fleet.breakers.gate import Gate
from fleet.breakers.recovery_log import RecoveryLog
from fleet.breakers.state_machine import BreakerSettings
from fleet.common.ids import Pair, ServerId
from fleet.config import Config, ServerSpec
from fleet.models.load_times import LoadTimes
from fleet.models.runner_options import Demand
from fleet.observability.metrics.registry import MetricsRegistry
from fleet.scheduling.bans import Bans
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.rates import RetryBudget
from fleet.scheduling.scheduler.decisions import SchedulerMemory


class TcpBackends:
    """Real backends."""

    def pool(self, spec: ServerSpec, on_connect: Callable[[], None]) -> Pool:
        clock, most = trio.lowlevel.current_clock().current_time, 64 if spec.learns else max(64, spec.cap)
        return Pool(BackendAddress.parse(spec.url), max_idle=most, clock=clock, on_connect=on_connect)

    def client(self, spec: ServerSpec, on_connect: Callable[[], None]) -> OllamaClient:
        return OllamaClient(spec, on_connect=on_connect)


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


def make_scheduler(config: Config, journal: Journal, metrics: MetricsRegistry) -> SchedulerState:
    """What outlives the dispatcher; bans are kept in the journal, and what predictions were worth is counted."""
    return SchedulerState(
        Mailbox[DispatcherMail]("dispatcher"),
        SchedulerMemory.fresh(rules_of(config)),
        RetryBudget(config.retry.budget_ratio, config.retry.budget_floor),
        Bans(changed=partial(touch_ban, journal)),
        expectations=ExpectedCompletion(metrics.predicted),
    )


def make_breakers(
    config: ConfigRef,
    clock: Clock,
    servers: Servers,
    dispatcher: Mailbox[DispatcherMail],
    recovery_log: RecoveryLog,
    journal: Journal,
) -> BreakerRegistry:
    """The breakers: they write gates into the servers' states, and the dispatcher hears of each."""
    now = config.current
    return BreakerRegistry(
        BreakerSettings.from_config(now.circuit_breaker),
        gates=_Gates(servers),
        on_change=lambda pair: dispatcher.cast(GateMoved(pair)),
        rng=clock.chance,
        enabled=now.enable_circuit_breaker,
        tester=ModelTester(servers, lambda: config.current.health.ps_timeout),
        book=recovery_log,
        on_move=partial(touch_breaker, journal),
    )


def make_statistics(
    config: ConfigRef, clock: Clock, servers: Servers, journal: Journal, listeners: Iterable[Listener]
) -> RequestStatistics:
    """Those who add up finished requests are told of them in this order, and after them `listeners`."""
    totals = Totals(clock.now, clock.wall, journal)
    metrics = MetricsRegistry(Listed(servers, clock.now), began=clock.wall())
    demand, load_times = Demand(), LoadTimes()
    told = (
        LoadLearner(servers, demand, load_times).note,
        totals.note,
        MetricsFeed(metrics, config, clock).note,
    )
    return RequestStatistics(RequestLog((*told, *listeners)), totals, metrics, demand, load_times)
