"""How others route: every request is sent at once, by what each of them looks at.

All share what any of them would have in practice: servers whose probes fail are left out, and so, for a while, is one
that has failed five times in a row (Envoy's outlier detection, which ejects at most half of the servers).
"""

from __future__ import annotations

import bisect
import math
import random
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.regret.demand import Links, VisibleRequest
from bench.regret.router import Ending, KnownServer, Order, Refuse, Send, Sighting
from fleet.breakers.outcomes import Completed

EJECT_AFTER: Final = 5
EJECTED: Final = 30.0
LOAD_SECONDS: Final = 10.0
"""What those who reckon with loads take one to last."""
TOKENS_PER_SECOND: Final = 1000.0
"""What those who reckon in tokens take a second to be worth in prefill."""
DEFAULT_SLOTS: Final = 4


@dataclass(eq=False, slots=True)
class Outlook:
    """What a rival keeps of one server."""

    known: KnownServer
    place: int
    pending: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Requests of each model that are out on it."""
    resident: set[str] = field(default_factory=set)
    reachable: bool = True
    failures: int = 0
    ejections: int = 0
    ejected_until: float = -math.inf
    latency: float = 0.0
    heard: float = 0.0
    first: float = 0.0
    links: OrderedDict[tuple[str, int], int] = field(default_factory=OrderedDict)

    @property
    def out(self) -> int:
        return sum(self.pending.values())

    @property
    def slots(self) -> int:
        return self.known.slots or DEFAULT_SLOTS

    def cached(self, model: str, links: Links) -> int:
        """Tokens of the longest beginning that was sent here lately."""
        return max((tokens for key, tokens in links if (model, key) in self.links), default=0)

    def note_links(self, model: str, links: Links) -> None:
        for key, tokens in links:
            self.links[model, key] = tokens
            self.links.move_to_end((model, key))
        while len(self.links) > 4096:
            self.links.popitem(last=False)


Choice = Callable[["Rival", Sequence[Outlook], VisibleRequest, float], Outlook | None]


class Rival:
    """A policy that sends at once; `choose` says where, among those that are well and have the model."""

    queues = False

    def __init__(self, name: str, choose: Choice, servers: Sequence[KnownServer], seed: int) -> None:
        self.name = name
        self.wake_at = math.inf
        self.dice = random.Random(seed)
        self.turn = 0
        self.outlooks = {each.id: Outlook(each, place) for place, each in enumerate(servers)}
        self._choose = choose
        self._out: dict[int, tuple[Outlook, str, float]] = {}

    def arrived(self, request: VisibleRequest, now: float) -> Sequence[Order]:
        candidates = self._candidates(request, now)
        chosen = self._choose(self, candidates, request, now) if candidates else None
        if chosen is None:
            return (Refuse(request.number, "no server"),)
        chosen.pending[request.model] += 1
        chosen.note_links(request.model, request.links)
        self._out[request.number] = (chosen, request.model, now)
        return (Send(request.number, chosen.known.id),)

    def _candidates(self, request: VisibleRequest, now: float) -> list[Outlook]:
        have = [
            each
            for each in self.outlooks.values()
            if request.model in each.known.models and each.known.id not in request.excluded
        ]
        well = [each for each in have if each.reachable]
        kept = [each for each in well if each.ejected_until <= now]
        return kept if len(kept) * 2 >= len(well) else well

    def began(self, number: int, now: float) -> Sequence[Order]:
        outlook, model, sent = self._out[number]
        outlook.resident.add(model)
        outlook.first += 0.2 * (now - sent - outlook.first) if outlook.first else now - sent
        return ()

    def ended(self, ending: Ending, now: float) -> Sequence[Order]:
        outlook, model, sent = self._out.pop(ending.number)
        outlook.pending[model] -= 1
        if isinstance(ending.end, Completed):
            outlook.failures = outlook.ejections = 0
            self._note_latency(outlook, now - sent, now)
        elif ending.began is None:
            outlook.failures += 1
            if outlook.failures >= EJECT_AFTER:
                outlook.failures, outlook.ejections = 0, outlook.ejections + 1
                outlook.ejected_until = now + EJECTED * outlook.ejections
        return ()

    def _note_latency(self, outlook: Outlook, seconds: float, now: float) -> None:
        """Peak EWMA, as Finagle has it: what is slower counts at once, what is faster with time (10 s)."""
        weight = math.exp(-(now - outlook.heard) / 10.0)
        outlook.latency = max(seconds, outlook.latency * weight + seconds * (1.0 - weight))
        outlook.heard = now

    def left(self, number: int, now: float) -> None:
        """Nobody waits here."""

    def probed(self, sighting: Sighting, now: float) -> Sequence[Order]:
        outlook = self.outlooks[sighting.server]
        outlook.reachable, outlook.resident = sighting.reachable, set(sighting.resident)
        return ()

    def woken(self, now: float) -> Sequence[Order]:
        return ()


# ---- the choices


def anyone(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Random."""
    return rival.dice.choice(among)


def next_one(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Round robin."""
    rival.turn += 1
    return among[rival.turn % len(among)]


def least_busy(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Least connections; of equals any."""
    return min(among, key=lambda each: (each.out, rival.dice.random()))


def better_of_two(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Power of two choices (Mitzenmacher 1996)."""
    return min(rival.dice.sample(among, min(2, len(among))), key=lambda each: each.out)


def peak_ewma(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Latency x (pending + 1), the unknown first (Finagle, Linkerd)."""

    def cost(each: Outlook) -> tuple[float, float]:
        return each.latency * math.exp(-max(0.0, now - each.heard) / 60.0) * (each.out + 1), rival.dice.random()

    return min(among, key=cost)


def bounded_hash(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Consistent hashing by model and beginning, with loads bounded to 1.25 of the mean (Mirrokni et al. 2016)."""
    bound = math.ceil(1.25 * (sum(each.out for each in among) + 1) / len(among))
    ring = sorted((zlib.crc32(f"{each.known.id}/{n}".encode()), each.place) for each in among for n in range(40))
    key = zlib.crc32(f"{request.model}/{request.links[0][0] if request.links else 0}".encode())
    start = bisect.bisect(ring, (key, 0))
    by_place = {each.place: each for each in among}
    for at in range(len(ring)):
        each = by_place[ring[(start + at) % len(ring)][1]]
        if each.out < bound:
            return each
    return among[0]


def l_metric(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Uncached prefill tokens x batch size (arXiv 2603.15202), a load counted as the tokens it would take."""

    def cost(each: Outlook) -> tuple[float, float]:
        tokens = max(1, request.guessed_tokens - each.cached(request.model, request.links))
        if request.model not in each.resident and not each.pending[request.model]:
            tokens += int(LOAD_SECONDS * TOKENS_PER_SECOND)
        return tokens * (each.out + 1), rival.dice.random()

    return min(among, key=cost)


def orchestrated(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook | None:
    """The reference orchestrator's: mostly the probe's own latency, stretched by load, halved where the model is.

    A full server is skipped, and where all are full the client is refused. Probes of all servers take equally long
    here, so what is left of the latency is the 40 % of the slow requests; ties go to the first server.
    """
    free = [each for each in among if each.out < each.slots]

    def cost(each: Outlook) -> float:
        seconds = 0.6 * 0.01 + 0.4 * each.latency if each.latency else 0.01
        seconds *= 1.0 + 0.5 * each.pending[request.model] / each.slots
        return seconds * (0.5 if request.model in each.resident else 1.1)

    return min(free, key=cost) if free else None


def resident_first(rival: Rival, among: Sequence[Outlook], request: VisibleRequest, now: float) -> Outlook:
    """Herd's: where the model is in memory, of those the least busy."""
    return min(among, key=lambda each: (request.model not in each.resident, each.out, rival.dice.random()))


RIVALS: Final[dict[str, Choice]] = {
    "plain_random": anyone,
    "plain_round_robin": next_one,
    "plain_least_connections": least_busy,
    "power_of_two": better_of_two,
    "peak_ewma": peak_ewma,
    "chwbl": bounded_hash,
    "lmetric": l_metric,
    "orchestrator": orchestrated,
    "herd": resident_first,
}
