"""Orders of every kind at random, while requests stream, retry, time out and leave: the fleet stays whole."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.breakers.breaker_actor import BreakerActor
from actors.config.reconfigure import apply
from actors.dispatch.dispatcher import Dispatcher
from actors.kit.mailbox import ActorGone, ActorSilent
from actors.kit.reply import heard
from actors.servers.server_actor import ServerActor
from fleet.breakers.gate import GateState
from fleet.breakers.state_machine import BreakerState
from fleet.common.errors import Conflict, FleetError, ServerNotFound
from fleet.common.ids import ModelName, Pair, RequestId, ServerId
from fleet.config import Config
from fleet.scheduling.bans import BanKind
from fleet.scheduling.server_state import Order
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

SERVERS = [ServerId(name) for name in ("a", "b", "c", "d")]
MODELS = [ModelName("m:latest"), ModelName("n:latest")]
ACTORS: list[type] = [Dispatcher, ServerActor, BreakerActor]
FAULTS = (
    "status:503:busy",
    "refuse",
    "hang-before-headers",
    "stall-mid-stream:20",
    "reset-mid-stream:20",
    "status:404:no",
)
STEPS = 1_000
QUICK = Profile(load_seconds=0.2, slots=8, tokens_per_second=100.0)
CONFIG: dict[str, Any] = {
    "timeouts": {"queue": 20, "first_byte": 3, "idle": 3, "total": 60, "connect": 1},
    "circuit_breaker": {"open_timeout": 2_000, "half_open_max_requests": 2, "half_open_timeout": 5_000},
    "health": {"interval": 5, "max_backoff": 10},
    "drain_timeout": 10,
}


def having(config: Config, **changes: Any) -> Config:
    plain = config.model_dump(exclude={"port"})
    for name, value in changes.items():
        plain[name] = {**plain[name], **value} if isinstance(value, dict) else value
    return Config.model_validate(plain)


class Storm:
    """Clients, operators and bad luck."""

    def __init__(self, fleet: Fleet, nursery: trio.Nursery, seed: int, crashes: bool) -> None:
        self.fleet, self.nursery, self.dice = fleet, nursery, random.Random(seed)
        self.system, self.crashes = fleet.system, crashes
        self.specs = {server: fleet.cell(server).state.spec for server in SERVERS}
        self.ends: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.open = 0
        self.broken: set[type] = set()

    # ---- clients

    def request(self) -> None:
        if self.open >= 60:
            return
        pinned = self.dice.choice([None, None, None, None, *SERVERS])
        call = chat(
            self.dice.choice("mn"),
            tokens=self.dice.randrange(1, 200),
            pinned=pinned,
            stream=self.dice.random() < 0.8,
            priority=self.dice.randrange(3),
        )
        call.request_id = RequestId(f"r{self.dice.randrange(20)}")
        patience = self.dice.choice([math.inf, math.inf, self.dice.uniform(0.0, 3.0)])
        self.nursery.start_soon(self._client, call, patience, self.dice.random() < 0.1)

    async def _client(self, call: Any, patience: float, stops: bool) -> None:
        self.open += 1
        client = Client()
        if stops:
            client.stop_reading()
        try:
            with trio.move_on_after(patience):
                await self.system.exchange(call, client)
            self.ends["complete" if client.complete else "left or cut"] += 1
        except FleetError as error:
            self.ends[type(error).__name__] += 1
        finally:
            self.open -= 1

    # ---- operators

    def pair(self) -> Pair:
        return Pair(self.dice.choice(SERVERS), self.dice.choice(MODELS))

    async def ban(self) -> None:
        until = self.dice.choice([math.inf, trio.current_time() + self.dice.uniform(0.0, 5.0)])
        await heard(self.system.orders.ban(self.pair(), "storm", until, "me"))

    async def lift(self) -> None:
        server = self.dice.choice([None, *SERVERS])
        model = self.dice.choice([None, *MODELS])
        await heard(self.system.orders.lift(server, model, self.dice.choice([None, *BanKind])))

    async def pause(self) -> None:
        await heard(self.system.orders.pause(self.dice.random() < 0.3, "me"))

    async def cancel(self) -> None:
        name = f"r{self.dice.randrange(20)}"
        both = [self.system.orders.cancel_waiting, self.system.orders.cancel_running]
        self.dice.shuffle(both)
        for each in both[: self.dice.randrange(1, 3)]:
            each(name)

    async def force(self) -> None:
        said = self.system.breakers.force(self.pair(), self.dice.choice(list(BreakerState)), "me")
        if said is not None and self.dice.random() < 0.5:
            await said.wait(5.0)

    async def reset(self) -> None:
        self.system.breakers.reset(self.pair())

    async def test(self) -> None:
        self.system.breakers.test(self.pair())

    async def capacity(self) -> None:
        server = self.dice.choice(SERVERS)
        if server in self.system.servers:
            spec = self.fleet.cell(server).state.spec
            self.system.change_server(spec.model_copy(update={"max_concurrency": self.dice.randrange(1, 6)}))

    async def configure(self) -> None:
        changes: list[dict[str, Any]] = [
            {"monitoring": {"max_concurrent_requests": self.dice.choice([None, None, 1, 3, 6])}},
            {"queue": {"ageing_seconds": self.dice.choice([1, 5, 1000])}},
            {"enable_queue": self.dice.random() < 0.9},
            {"enable_circuit_breaker": self.dice.random() < 0.8},
            {"circuit_breaker": {"half_open_max_requests": self.dice.randrange(1, 4)}},
            {"timeouts": {"first_byte": self.dice.choice([1, 3])}},
            {"queue": {"no_server_grace": self.dice.choice([0.01, 2, 10])}},
            {"monitoring": {"max_queue_size": self.dice.choice([3, 1000, 1000])}},
            {"load_balancer": {"candidates": self.dice.choice([1, 16])}},
        ]
        system = self.system
        apply(system.config_ref, system.membership, having(system.config, **self.dice.choice(changes)))

    async def administer(self) -> None:
        server = self.dice.choice(SERVERS)
        order = self.dice.choice([Order.DRAIN, Order.MAINTAIN, Order.ACTIVATE, Order.ACTIVATE, Order.ACTIVATE])
        until = trio.current_time() + self.dice.uniform(0.0, 4.0) if order is Order.MAINTAIN else math.inf
        await self.system.ordered(server, order, "storm", "me", until)

    async def membership(self) -> None:
        server = self.dice.choice(SERVERS[2:])
        if server in self.system.servers:
            self.nursery.start_soon(self._remove, server, self.dice.random() < 0.5)
        else:
            self.system.add_server(self.specs[server])

    async def _remove(self, server: ServerId, drain: bool) -> None:
        with suppress(ServerNotFound, Conflict):
            await self.system.remove_server(server, drain=drain)

    async def trouble(self) -> None:
        backend = self.fleet[self.dice.choice(SERVERS)]
        if self.dice.random() < 0.2:
            backend.kill()
        else:
            backend.refusing = False
            backend.host.faults.set(*self.dice.sample(FAULTS, self.dice.choice([0, 0, 1])))

    async def crash(self) -> None:
        """One actor breaks at the next message it gets."""
        self.broken.add(self.dice.choice(ACTORS))

    async def probe(self) -> None:
        for server in self.system.servers:
            self.system.refresh(server)

    async def step(self) -> None:
        for _ in range(self.dice.randrange(3)):
            self.request()
        order: Callable[[], Any] = self.dice.choice(
            [
                self.ban,
                self.ban,
                self.lift,
                self.lift,
                self.pause,
                self.cancel,
                self.cancel,
                self.force,
                self.force,
                self.reset,
                self.reset,
                self.test,
                self.capacity,
                self.configure,
                self.configure,
                self.administer,
                self.administer,
                self.membership,
                self.trouble,
                self.trouble,
                self.probe,
                *([self.crash] if self.crashes else []),
            ]
        )
        self.done[order.__name__] += 1
        lost = (FleetError, ActorGone, ActorSilent) if self.crashes else ()  # the message in hand is what a crash costs
        with suppress(ServerNotFound, Conflict, *lost):
            await order()
        self.check(order.__name__, settled=False)
        if self.dice.random() < 0.6:
            await trio.sleep(self.dice.choice([0.0, 0.01, 0.1, 0.5, 1.0]))
            await wait_all_tasks_blocked()
            self.check(f"{order.__name__} and a while", settled=True)

    # ---- what always holds

    def check(self, after: str, *, settled: bool) -> None:
        fleet = self.system
        if not fleet.scheduler.mailbox.resting or fleet.scheduler.mailbox.depth:
            return  # news are on their way
        now = trio.current_time()
        cells = fleet.servers.values()
        assert self.system.in_flight == sum(len(cell.leases) for cell in cells), after
        assert fleet.scheduler.memory.total.in_use == self.system.in_flight, after
        for cell in cells:
            assert cell.state.ledger.numbers.keys() == cell.leases.keys(), after
            assert cell.state.barred == fleet.scheduler.bans.barred(cell.state.id, now), (after, cell.state.id)
            if settled:
                self.check_permits(cell, after)
        if not fleet.scheduler.memory.paused and fleet.scheduler.memory.total.free >= 1:
            for ticket in fleet.scheduler.tickets.values():
                self.check_waiting(ticket, after)

    def check_waiting(self, ticket: Any, after: str) -> None:
        for cell in self.system.servers.values():
            state = cell.state
            if ticket.pinned:
                ready = state.id == ticket.pinned and state.usable and state.ledger.free >= 1
            else:
                ready = state.id not in ticket.excluded and state.ready(ticket.model)
            assert not (ticket.open and ready), (after, ticket, state)

    def check_permits(self, cell: Any, after: str) -> None:
        testing = {
            view.pair.model: view.active_tests
            for view in self.system.breakers.describe()
            if view.pair.server == cell.state.id
        }
        for model, gate in cell.state.gates.items():
            if gate.state is GateState.LIMITED:
                out = sum(
                    lease.grant.gate is gate and lease.generation == gate.generation for lease in cell.leases.values()
                )
                most = out + testing.get(model, 0)
                assert gate.trials_out <= most, (after, cell.state.id, model, gate, out, testing)


def break_actors(monkeypatch: pytest.MonkeyPatch, broken: set[type]) -> None:
    """An actor of a class that is named in `broken` fails at its next message, once."""

    def breakable(actor: type) -> None:
        original: Any = actor._handle  # type: ignore[attr-defined]

        def handle(self: Any, message: Any, now: float) -> Any:
            if actor in broken:
                broken.discard(actor)
                raise RuntimeError("injected")
            return original(self, message, now)

        monkeypatch.setattr(actor, "_handle", handle)

    for each in ACTORS:
        breakable(each)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "crashes"), [(0, False), (1, False), (2, True), (3, True)])
async def test_a_storm_of_orders_leaves_the_fleet_whole(
    seed: int,
    crashes: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expected_errors: list[str],
) -> None:
    """After each order: in-flight = open leases = ledgers, nobody waits for a ready server, no permit is lost."""
    if crashes:
        expected_errors.append("crash")
    servers = [(name, QUICK) for name in SERVERS]
    async with open_fleet(*servers, slots=2, **CONFIG) as fleet, trio.open_nursery() as nursery:
        storm = Storm(fleet, nursery, seed, crashes)
        break_actors(monkeypatch, storm.broken)
        for _ in range(STEPS):
            await storm.step()
        storm.broken.clear()
        assert storm.ends["complete"] > STEPS / 40, storm.ends  # else nothing was under load
        assert len(storm.done) >= 13, storm.done
        for server in SERVERS:
            fleet[server].refusing = False
            fleet[server].host.faults.set()
        fleet.system.pause(False)
        with trio.fail_after(200):
            while storm.open:
                await trio.sleep(1.0)
        fleet.assert_nothing_left()
