"""Which of the ready servers gets a request. A score is named parts, so that every decision can be explained.

A policy turns a server into a tuple of numbers, one for each of its `parts`; the largest sum wins. Parts of the
`weighted` policy lie between 0 and 1 before their weight. What is unknown counts as good: a new server gets tried.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from fleet.breakers.gate import GateState
from fleet.common.ids import ModelName
from fleet.common.randomness import Chance
from fleet.scheduling.choice.intents import Ahead
from fleet.scheduling.choice.rents import Rents
from fleet.scheduling.moving_average import FRESH, PairStats
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Ticket

if TYPE_CHECKING:
    from fleet.config import Config, Weights

Parts = tuple[float, ...]
Scored = tuple[ServerState, Parts]

_TYPICAL_FIRST_BYTE = 5.0
"""Seconds to the first byte at which the latency part is one half."""
_TYPICAL_SPEED = 50.0
"""Tokens per second at which the throughput part is one half."""
_SETTLED = 10.0
"""Seconds within which so little is forgotten of times and speeds (2 %) that to reckon it would cost more."""
_TYPICAL_FREE = 4.0
"""Free slots at which the capacity part is one half."""


_NEW: Final = PairStats.fresh()
"""What is known of a pair that has served nothing yet. Never written."""


class Prices(Protocol):
    """What serving a ticket on a server costs, in seconds below zero, so that the largest sum wins. None is infinite.

    `wait`, `load` and `harm` are the places of three of the parts: of the wait for a slot (zero only if it can begin at
    once), of a load, and of what others lose by it.
    """

    wait: int
    load: int
    harm: int
    rents: Rents

    def price(self, ticket: Ticket, server: ServerState, ahead: Ahead, now: float) -> Parts:
        """`ahead`: who waits for this server and goes before."""
        ...

    def least(self, ticket: Ticket, server: ServerState, now: float) -> float:
        """Seconds that it costs there at least, found out in a moment: what `price` adds up to is never less."""
        ...

    def has_room(self, ticket: Ticket, server: ServerState) -> bool:
        """Whether the runner that the ticket wants may get one more request, as far as that is known."""
        ...

    def spares(self, ticket: Ticket, server: ServerState, now: float) -> bool:
        """Whether a load for the ticket there leaves everybody a home whom somebody may soon ask for."""
        ...

    @property
    def doubtful(self) -> bool:
        """Whether there is any server for which prices cannot tell."""
        ...

    def fallback(self, ticket: Ticket, equals: Sequence[Scored], now: float) -> Scored | None:
        """Which of several that can begin at once without a load, if prices cannot tell; None: they can."""
        ...

    def claim(self, ticket: Ticket, server: ServerState, wait: float, now: float) -> None:
        """The ticket hopes for this server, has earned what it costs others, and waits for so many seconds."""
        ...

    def begin(self) -> None:
        """Lines are made anew, at the start, after a crash or for another configuration; nobody stands in them yet."""
        ...

    def entered(self, ticket: Ticket, now: float) -> None:
        """The ticket stands in line."""
        ...

    def left(self, ticket: Ticket, now: float) -> None:
        """The ticket is in line no more: granted, refused, or withdrawn."""
        ...


class BalancingPolicy(Protocol):
    """One way to choose. `parts` names what `score` returns.

    `prices` are there if the policy plans: then a request may wait although a server is ready, and they decide.
    """

    @property
    def prices(self) -> Prices | None: ...

    @property
    def name(self) -> str: ...

    @property
    def parts(self) -> tuple[str, ...]: ...

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts: ...


class Mindful:
    """A policy that holds fast failures against a pair, whatever else it goes by: `unit` for each in a row, lately.

    That part is called `cooling` and comes first. From the second on the pair is passed over besides (see
    `fleet.scheduling.cooldown`).
    """

    def __init__(self, policy: BalancingPolicy, unit: float) -> None:
        self.name = policy.name
        self.prices = policy.prices
        self.parts = ("cooling", *policy.parts)
        self._score = policy.score
        self._unit = unit

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        parts = self._score(server, model, now)
        stats = server.stats.get(model)
        strikes = 0.0 if stats is None or not stats.cooling.strikes else stats.cooling.held(now)
        return (0.0 - self._unit * strikes, *parts)  # a plain sign would make -0.0 of nothing, which people read


class Weighted:
    """Named parts times configured weights (the default)."""

    name = "weighted"
    prices = None
    parts = ("latency", "success_rate", "load", "capacity", "circuit_breaker", "residency", "throughput", "priority")

    def __init__(self, weights: Weights) -> None:
        self._weights = tuple(float(getattr(weights, part)) for part in self.parts)

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        latency, success_rate, load, capacity, breaker, residency, throughput, priority = self._weights
        stats = server.stats.get(model, _NEW)
        first_byte, success, speed = stats.first_byte.value, stats.success.value, stats.speed.value
        if success is not None and (idle := now - stats.success.at) > FRESH:  # whatever ends is a sample of this
            if success < 1.0:
                success = stats.success.towards(1.0, now)
            if idle > _SETTLED:
                first_byte = stats.first_byte.towards(0.0, now)
                speed = stats.speed.towards(_TYPICAL_SPEED, now)
        ledger = server.ledger
        total = server.capacity if server.learns else ledger.capacity
        free = total - len(ledger.numbers)
        if free < 0:
            free = 0
        return (
            latency if first_byte is None else latency * _TYPICAL_FIRST_BYTE / (_TYPICAL_FIRST_BYTE + first_byte),
            # Squared, so that a server that fails every tenth request loses a fifth, not a tenth.
            success_rate if success is None else success_rate * success * success,
            load * free / total,
            capacity * free / (free + _TYPICAL_FREE),
            breaker if model not in server.gates else breaker * _breaker(server.gates[model].state),
            residency if model in server.resident else residency * _loading(server, model),
            throughput * (0.5 if speed is None else speed / (speed + _TYPICAL_SPEED)),
            priority * _squash(server.spec.priority),
        )


def _breaker(state: GateState) -> float:
    return 1.0 if state is GateState.OPEN else 0.2


def _loading(server: ServerState, model: ModelName) -> float:
    """0.9 while our own requests make the server load a model that it does not report as loaded yet, else 0."""
    return 0.9 if server.ledger.of_model(model) else 0.0


@functools.cache  # priorities are few: -100 to 100
def _squash(priority: int) -> float:
    return 1.0 / (1.0 + math.exp(-priority / 10.0))


class LeastConnections:
    """The smallest share of busy slots."""

    name = "least_connections"
    prices = None
    parts = ("idle_share",)

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        capacity = server.capacity
        return (max(capacity - server.ledger.in_use, 0) / capacity,)


class FastestResponse:
    """The shortest expected time to the first byte: observed mean, stretched by load, plus a load of the model."""

    name = "fastest_response"
    prices = None
    parts = ("expected_seconds",)

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        stats = server.stats.get(model)
        seen = server.last_response or 0.0
        if stats is not None:
            seen = stats.first_byte.towards(seen, now)
        busy = 1.0 + server.ledger.in_use / server.capacity
        warm = model in server.resident or _loading(server, model)
        cold = 0.0 if warm else _TYPICAL_FIRST_BYTE
        return (0.0 - (seen * busy + cold),)


class RoundRobin:
    """The server whose last grant is the longest ago."""

    name = "round_robin"
    prices = None
    parts = ("turns_since",)

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        return (0.0 - server.last_granted,)


class Random:
    """Any."""

    name = "random"
    prices = None
    parts = ("chance",)

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        return (self._chance.random(),)


_UNITS: Final = {"fastest_response": _TYPICAL_FIRST_BYTE, "round_robin": 2.0}
_UNIT: Final = 0.1
"""What a fast failure weighs, in the policy's own measure: seconds, turns, or shares of one."""
_MAKERS: Final[Mapping[str, Callable[[Config, Chance], BalancingPolicy]]] = {
    "weighted": lambda config, chance: Weighted(config.load_balancer.weights),
    "least_connections": lambda config, chance: LeastConnections(),
    "fastest_response": lambda config, chance: FastestResponse(),
    "round_robin": lambda config, chance: RoundRobin(),
    "random": lambda config, chance: Random(chance),
}


def make_policy(config: Config, chance: Chance) -> BalancingPolicy:
    """The policy that `load_balancer.policy` names."""
    name = config.load_balancer.policy
    return Mindful(_MAKERS[name](config, chance), _UNITS.get(name, _UNIT))
