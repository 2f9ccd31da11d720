"""Looking at the fleet for the monitor: a quick look once a second; what is dearer now and then, in small pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from actors.state.messages import RequestRecord
from actors.state.request_log import LATELY
from fleet.breakers.gate import GateState
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.alerting.facts import (
    NO_TRAFFIC,
    BreakerFact,
    CapFact,
    Facts,
    FleetTrouble,
    ModelFact,
    QueueFact,
    ServerFact,
    Traffic,
)
from fleet.observability.alerting.traffic_facts import ASKED, Counts, flaps_of
from fleet.observability.metrics.definitions import OTHER
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.scheduling.server_state import Admin, Health
from fleet.scheduling.server_words import METRICS, word_of

if TYPE_CHECKING:
    from actors.breakers.registry import BreakerRegistry
    from actors.observability.host.sampler import HostWatch
    from actors.observability.watched_fleet import WatchedFleet
    from fleet.scheduling.server_state import ServerState

MOST_TICKETS: Final = 2_000
"""Waiting requests that are looked at one by one."""
MOST_MODELS: Final = 50
"""Models without a route that are named."""
MOST_BREAKERS: Final = 500
MOST_NAMED: Final = 3
"""Servers that were set aside and are named."""


def count_requests(counts: Counts, now: Callable[[], float], batch: RequestBatch[RequestRecord]) -> None:
    """Requests have ended: add them to what alerts ask about. `now`: our clock."""
    counts.note(batch, now())


class Look:
    """The cell of what was seen. `quick` is for every second, `thorough` for every few."""

    def __init__(self, fleet: WatchedFleet, breakers: BreakerRegistry, host: HostWatch, counts: Counts) -> None:
        self.counts = counts
        self.traffic: Traffic = NO_TRAFFIC
        self._fleet = fleet
        self._breakers = breakers
        self._host = host
        self._opened: dict[Pair, BreakerFact] = {}

    def opened(self, pair: Pair) -> float | None:
        """Since when a breaker has not been closed, half-open tries included; None: it was not seen so."""
        fact = self._opened.get(pair)
        return None if fact is None else fact.since

    # ---- once a second

    def quick(self) -> Facts:
        """All that is known now; about traffic but first tokens, what the last thorough look found."""
        fleet, now = self._fleet, self._fleet.clock.now()
        self.traffic = replace(self.traffic, first=self.counts.first_tokens(now))
        states = [cell.state for cell in fleet.servers.values()]
        wanted = self._wanted()
        return Facts(
            now=now,
            at=fleet.clock.wall(),
            servers=tuple(map(fact_of, states)),
            queue=self._queue(states, wanted),
            unservable=tuple(self._unservable(states, wanted, now)),
            breakers=self._open_breakers(now),
            traffic=self.traffic,
            draining=fleet.servers.draining,
            open_requests=fleet.open_requests,
            reload=self._reload(now),
            store=self._store(now),
            dropped=self._dropped(now),
            aside=self._aside(now),
            host=self._host.latest,
            caps=tuple(self._caps(states)),
            probe_failures=fleet.config.current.health.failures,
        )

    def _caps(self, states: Iterable[ServerState]) -> Iterable[CapFact]:
        """Of servers with a number of their own, those that were seen to serve another."""
        for state in states:
            if state.usable and not state.learns:
                serves = self._fleet.scheduler.expectations.serves_at_once(state)
                if serves is not None and serves != state.spec.cap:
                    yield CapFact(state.id, state.spec.cap, serves)

    def _wanted(self) -> Counter[ModelName]:
        """Which models they wait for; of a very long line, its beginning."""
        tickets = islice(self._fleet.scheduler.tickets.values(), MOST_TICKETS)
        return Counter(ticket.model for ticket in tickets if ticket.open and ticket.model)

    def _queue(self, states: Sequence[ServerState], wanted: Counter[ModelName]) -> QueueFact:
        fleet, memory = self._fleet, self._fleet.scheduler.memory
        first = islice(fleet.scheduler.tickets.values(), MOST_TICKETS)
        model = wanted.most_common(1)[0][0] if wanted else ModelName("")
        having = [state for state in states if state.usable and model in state.models] if model else []
        return QueueFact(
            waiting=len(fleet.scheduler.tickets),
            capacity=fleet.config.current.queue_size,
            oldest=min((ticket.enqueued for ticket in first if ticket.open), default=None),
            paused=memory.paused,
            paused_since=memory.paused_since,
            paused_by=memory.paused_by,
            model=model,
            taken=sum(state.in_use for state in having),
            slots=int(sum(state.capacity for state in having)),
        )

    def _unservable(
        self, states: Sequence[ServerState], wanted: Iterable[ModelName], now: float
    ) -> Iterable[ModelFact]:
        """Models that clients want, that servers have, and that none could be asked for."""
        asked = {model for model, at in self.counts.asked.items() if at >= now - ASKED}
        if not (without := (asked | set(wanted)) - served_by(states)):
            return
        held = without & set[ModelName]().union(*(state.models for state in states))
        for model in sorted(held)[:MOST_MODELS]:
            holders = [state for state in states if model in state.models]
            down = sum(state.health is not Health.HEALTHY for state in holders)
            yield ModelFact(model, len(holders), down)

    def _open_breakers(self, now: float) -> tuple[BreakerFact, ...]:
        """Those that are not closed; since when is asked once, for they are half open in between."""
        states = self._breakers.states()
        pairs = list(islice((pair for pair, state, _ in states if state is not BreakerState.CLOSED), MOST_BREAKERS))
        before, self._opened = self._opened, {}
        for pair in pairs:
            fact = before.get(pair) or self._breaker(pair, now)
            if fact is not None:
                self._opened[pair] = fact
        return tuple(self._opened.values())

    def _breaker(self, pair: Pair, now: float) -> BreakerFact | None:
        view = self._breakers.get(pair, now)
        return None if view is None else BreakerFact(pair, view.since, view.forced_by is not None)

    def _reload(self, now: float) -> FleetTrouble | None:
        reloads = self._fleet.config.reloads
        return None if reloads.since is None else FleetTrouble(self._moment(reloads.since, now), reloads.text)

    def _store(self, now: float) -> FleetTrouble | None:
        standing = self._fleet.journal.standing
        if standing.state != "degraded":
            return None
        return FleetTrouble(now if standing.since is None else self._moment(standing.since, now), standing.why)

    def _dropped(self, now: float) -> FleetTrouble | None:
        recorder = self._fleet.statistics.request_log
        at, since = recorder.dropped_at, recorder.dropped_since
        if at is None or now - at >= LATELY:
            return None
        return FleetTrouble(at if since is None else since, "", recorder.dropped)

    def _aside(self, now: float) -> FleetTrouble | None:
        journal = self._fleet.journal
        if not journal.aside:
            return None
        since = now if journal.standing.since is None else self._moment(journal.standing.since, now)
        return FleetTrouble(since, ", ".join(key for _, key in islice(journal.aside, MOST_NAMED)), len(journal.aside))

    def _moment(self, epoch: float, now: float) -> float:
        return min(self._fleet.clock.moment(epoch), now)

    # ---- every few seconds

    async def thorough(self) -> None:
        """Add up what requests told, server by server, and let others run in between."""
        fleet, counts = self._fleet, self.counts
        await fleet.statistics.request_log.catch_up()
        counts.forget(set(fleet.servers), fleet.clock.now())
        servers, flaps = {}, {}
        for cell in list(fleet.servers.values()):
            state, now = cell.state, fleet.clock.now()
            counts.look(state.id, state.resident if state.health is Health.HEALTHY else None, now)
            servers[str(state.id)] = counts.server(state.id, now)
            flaps.update(flaps_of(self._breakers.book.page(state.id), now))
            await trio.lowlevel.checkpoint()
        counts.loaded(self._counted_loads(), fleet.clock.now())
        self._refresh_forced(fleet.clock.now())
        self.traffic = counts.traffic(fleet.clock.now(), servers, flaps)

    def _counted_loads(self) -> dict[Pair, int]:
        """So that Prometheus, which reads the same counters, complains of nothing that we do not."""
        pairs = self._fleet.statistics.metrics.pairs.items()
        return {
            Pair(ServerId(server), ModelName(model)): pair.loads
            for (server, model), pair in pairs
            if pair.loads and OTHER not in (server, model)
        }

    def _refresh_forced(self, now: float) -> None:
        """Operators force breakers, and release them, while they are open."""
        for pair, fact in self._opened.items():
            if (view := self._breakers.get(pair, now)) is not None:
                self._opened[pair] = fact._replace(forced=view.forced_by is not None)


def served_by(states: Iterable[ServerState]) -> set[ModelName]:
    """The models for which any of these is routable (`ServerState.routable`): a millisecond for a thousand servers."""
    served: set[ModelName] = set()
    for state in states:
        if state.usable:  # only the exceptions are looked at one by one: there are few
            shut = {model for model, gate in state.gates.items() if gate.state is GateState.SHUT}
            shut |= state.barred - state.cooling  # what cools down is served when nobody else can
            served.update(state.models.keys() - shut if shut else state.models)
    return served


def fact_of(state: ServerState) -> ServerFact:
    """A server as rules see it: what the operator says, unless it is in service; else what the probes say."""
    word = word_of(state, METRICS)
    if state.admin is not Admin.ACTIVE:
        return ServerFact(state.id, word, state.admin_since, state.admin_why, state.failed_rounds)
    since = max(state.since, state.admin_since)  # out of service its health was nobody's trouble
    return ServerFact(state.id, word, since, state.why, state.failed_rounds)
