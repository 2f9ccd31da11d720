"""What a routing decision costs, without sockets and without turns of the event loop.

`python -m bench.parts.dispatcher [--json]`. Figures are microseconds, the median of several rounds, garbage collector
off.

* fleet: 200 servers, 50 models, each on about 50 servers, the weighted policy. Nobody waiting: the fleet is idle, so a
  submit is a choice among 16 candidates. Somebody waiting: the fleet is full, so a submit joins its line, and a release
  is a slot freed plus the grant of the next in line. `flatness`: a request with 5,000 waiting against one with 100.
* alone: one idle server; from making the ticket over the dispatcher's mailbox to the grant, and the freed slot.
* breaker: an attempt that went well, on a pair whose breaker is closed (most pairs have none, which costs nothing).
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from time import perf_counter
from typing import Any, Final, cast

import orjson
import trio
import trio.testing

from actors.dispatch.dispatcher import Dispatcher
from actors.kit.clock import Clock
from actors.kit.mailbox import Mailbox
from actors.state.config_ref import ConfigRef
from actors.state.lease import LeaseContext
from actors.state.messages import DispatcherMail, ServerMail, SlotFreed, Submitted
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import ServerCell, Servers
from actors.state.ticket import PendingTicket
from fleet.breakers.gate import Gate
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import Breaker, BreakerSettings
from fleet.common.ids import ModelName, Pair, RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.common.randomness import Chance
from fleet.config import Config, ServerSpec
from fleet.protocol.call import Call
from fleet.scheduling.choice.balancing import make_policy
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits, SchedulerMemory
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.server_state import Health, ServerState
from fleet.scheduling.wait_queue import Ticket

WAITING: Final = (0, 100, 1_000, 5_000)
STEPS: Final = 400
"""Requests per round."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Microseconds: a request that comes, a slot that is freed (with the grant of the next), and both together."""

    servers: int
    models: int
    waiting: int
    submit: float
    release: float
    decision: float


class Fleet:
    """A board with many servers and, unless `waiting` is 0, every slot taken and that many in line."""

    def __init__(self, servers: int, models: int, waiting: int, *, holders: int = 50, slots: int = 4) -> None:
        self._dice = random.Random(7)
        self._number = 0
        self._open: list[Grant] = []
        self._models = [canonical(f"model-{n}:7b") for n in range(models)]
        rules = SchedulerLimits(max_size=waiting + 1_000_000)
        policy = make_policy(Config(), self._dice)
        self.board = Scheduler(rules, policy, self._dice, SchedulerMemory.fresh(rules), 0.0)
        for state in self._servers(servers, holders, slots):
            self.board.index.update(state, 0.0)
        for _ in range(servers * slots * 2 if waiting else 0):  # some lines are filled before all slots are taken
            self._keep(self.board.submit(self._ticket(), 0.0))
        while len(self.board.queue) < waiting:
            self._keep(self.board.submit(self._ticket(), 0.0))

    def round(self, steps: int = STEPS) -> tuple[float, float]:
        """So many requests come and as many end; the mean of both in microseconds."""
        submit = release = 0.0
        for ticket in [self._ticket() for _ in range(steps)]:
            began = perf_counter()
            grant = self.board.submit(ticket, 1.0)
            submit += perf_counter() - began
            self._keep(grant)
            ended = self._open.pop(self._dice.randrange(len(self._open)))
            began = perf_counter()
            given = self._release(ended)
            release += perf_counter() - began
            self._open += given
        return submit / steps * 1e6, release / steps * 1e6

    def _release(self, grant: Grant) -> list[Grant]:
        grant.server.ledger.close(grant.number)
        self.board.memory.total.close(grant.number)
        self.board.freed(grant.server, grant.model, 1.0)
        return [given for _, given in self.board.serve(grant.server, 1.0)]

    def _servers(self, servers: int, holders: int, slots: int) -> list[ServerState]:
        states = []
        for n in range(servers):
            url = f"http://10.0.{n // 250}.{n % 250}:11434"
            states.append(_server(ServerSpec(id=ServerId(f"server-{n}"), url=url, max_concurrency=slots), ()))
        for model in self._models:
            for state in self._dice.sample(states, min(holders, servers)):
                state.models[model] = {}
                stats = state.stats_of(model)
                stats.first_byte.add(1.0)
                stats.success.add(1.0)
                if self._dice.random() < 0.5:
                    state.resident[model] = {}
        return states

    def _ticket(self) -> Ticket:
        self._number += 1
        return Ticket(self._number, RequestId("r"), self._dice.choice(self._models), 0, float(self._number))

    def _keep(self, grant: Grant | None) -> None:
        if grant is not None:
            self._open.append(grant)


def _server(spec: ServerSpec, models: tuple[ModelName, ...]) -> ServerState:
    state = ServerState(spec, health=Health.HEALTHY, seen=True)
    state.models = {model: {} for model in models}
    return state


class Alone:
    """A real dispatcher with one server; nothing but the slot and the news of a lease's end is simulated."""

    def __init__(self) -> None:
        self._model = canonical("m")
        config, url = Config(), "http://10.0.0.1:11434"
        state = _server(ServerSpec(id=ServerId("a"), url=url, max_concurrency=4), (self._model,))
        self._mail = Mailbox[DispatcherMail]("dispatcher")
        nothing = cast(Any, None)
        self._cell = ServerCell(state, nothing, nothing, Mailbox[ServerMail]("server a"))
        memory = SchedulerMemory.fresh(SchedulerLimits())
        servers = Servers()
        servers[state.id] = self._cell
        self._scheduler = SchedulerState(self._mail, memory, nothing)
        leases = LeaseContext(Clock(), self._scheduler, servers, nothing)
        self._dispatcher = Dispatcher(ConfigRef(config), leases, lambda: None)
        self._pair = Pair(state.id, self._model)

    async def start(self, nursery: trio.Nursery) -> None:
        """Returns when the dispatcher rests."""
        nursery.start_soon(self._dispatcher.run)
        await trio.testing.wait_all_tasks_blocked()

    def request(self, number: int, call: Call) -> None:
        """A ticket is made, sent, granted; its slot is freed again."""
        ticket = PendingTicket(
            number=number,
            request_id=RequestId("r"),
            model=self._model,
            priority=0,
            enqueued=0.0,
            pinned=None,
            excluded=frozenset(),
            runs=True,
            call=call,
        )
        self._scheduler.tickets[number] = ticket
        self._mail.cast(Submitted(ticket))  # handled at once, since the dispatcher rests
        lease = ticket.lease
        assert lease is not None
        del self._cell.leases[lease.number]
        self._cell.state.ledger.close(lease.number)
        self._scheduler.memory.total.close(lease.number)
        self._mail.cast(SlotFreed(self._pair))


def one_request(rounds: int, steps: int = STEPS) -> float:
    """Microseconds for one request on one idle server."""

    async def main() -> float:
        bench, call, numbers = Alone(), cast(Call, object()), count()
        async with trio.open_nursery() as nursery:
            await bench.start(nursery)
            found = _time(lambda: bench.request(next(numbers), call), rounds, steps)
            nursery.cancel_scope.cancel()
        return found

    return trio.run(main)


def closed_breaker(rounds: int, steps: int = STEPS) -> float:
    """Microseconds to record a success with a breaker that is closed and has seen one failure."""
    pair = Pair(ServerId("a"), canonical("m"))
    breaker = Breaker(pair, BreakerSettings(), cast(Chance, random.Random(1)), Gate())
    breaker.record(Signal.FAILURE, "backend_broke", 0.0, 0)
    return _time(lambda: breaker.record(Signal.SUCCESS, "completed", 1.0, 0), rounds, steps)


def fleet(servers: int, models: int, waiting: int, rounds: int) -> Figure:
    """One line of the table."""
    bench = Fleet(servers, models, waiting)
    with _no_collector():
        pairs = [bench.round() for _ in range(rounds)]
    submit, release = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Figure(servers, models, waiting, submit, release, submit + release)


def _time(work: Callable[[], object], rounds: int, steps: int) -> float:
    figures = []
    with _no_collector():
        for _ in range(rounds):
            began = perf_counter()
            for _ in range(steps):
                work()
            figures.append((perf_counter() - began) / steps * 1e6)
    return statistics.median(figures)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Garbage is collected before, not while, the clock runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(servers: int, models: int, rounds: int) -> dict[str, Any]:
    """Everything, as plain data."""
    figures = [fleet(servers, models, waiting, rounds) for waiting in WAITING]
    by_waiting = {figure.waiting: figure.decision for figure in figures}
    return {
        "fleet": [asdict(figure) for figure in figures],
        "flatness": by_waiting[5_000] / by_waiting[100],
        "alone": one_request(rounds),
        "breaker": closed_breaker(rounds),
    }


def _table(found: dict[str, Any]) -> str:
    lines = [f"{'servers':>8} {'models':>7} {'waiting':>8} {'submit':>8} {'release':>8} {'both':>8}   microseconds"]
    for row in found["fleet"]:
        whole = f"{row['servers']:8} {row['models']:7} {row['waiting']:8}"
        lines.append(f"{whole} {row['submit']:8.1f} {row['release']:8.1f} {row['decision']:8.1f}")
    lines.append(f"flatness, 5,000 waiting against 100: {found['flatness']:.2f}")
    lines.append(f"one request on one idle server: {found['alone']:.1f} us")
    lines.append(f"a success with a closed breaker: {found['breaker']:.2f} us")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What a routing decision costs.")
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args()
    found = measure(asked.servers, asked.models, asked.rounds)
    sys.stdout.write((orjson.dumps(found).decode() if asked.json else _table(found)) + "\n")


if __name__ == "__main__":
    main()
