"""Which models a load would throw out, and how many seconds others lose by that.

Formula: E(V) = sum over the victims of load x ((1 - exp(-rate x 120 s)) + rate x load / 2 + waiting): whoever asks for
it next loads it again, who comes during that load waits for half of it, and who stands in line for it now for all of
it; a quarter of that if it is loaded elsewhere too. Rate: requests for the victim in a second, over the whole fleet,
weights halving in five minutes. Unit: seconds. Source of the formula: "expected completion" counts what one request
costs the others, as far as they come soon; the quarter is a guess that the referee (bench/regret) likes.

Whether there is room is learned: what was seen loaded together fits together, by bytes (`size_vram` of /api/ps) and by
number; a model that is gone before its time when another one came teaches the edge. Until an edge is known a server is
taken to have room: a load there finds out. Ollama throws out the idle runner with the shortest keep-alive, and waits
for the shortest if none is idle.

What it is wrong about: the keep-alive of a runner cannot be seen, so the end of its time (`expires_at`) stands for it;
other programs share the memory; a context that shrank to fit looks like room; a model that was unloaded on purpose just
when another came looks like an eviction, until more is seen loaded together again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf, log
from typing import Final

from fleet.common.ids import ModelName, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import faded, sane
from fleet.scheduling.estimates.averages.plain_rows import rows_of

HORIZON: Final = 120.0
"""Seconds within which a request for the victim counts as a loss."""
MOST_HARM: Final = 120.0
"""Seconds: no load is held to cost others more."""
_ELSEWHERE: Final = 0.25
_EARLY: Final = 2.0
"""Seconds before its time at which a model that is gone was thrown out, not let go."""
_RATE_HALF_LIFE: Final = 300.0
_OVERHEAD: Final = 1.15
"""Memory of a runner over the size of its file, until it was seen loaded."""
_MODELS: Final = 4096
_SERVERS: Final = 1024
_MOST_BYTES: Final = 2.0**50


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model, as a look at /api/ps showed it: bytes, and until when (the caller's clock, `inf` for ever)."""

    model: ModelName
    size: float
    expires_at: float


@dataclass(slots=True)
class _Room:
    """What one server was seen to hold, and where it ended. Residents in the order in which they would go."""

    residents: tuple[Resident, ...] = ()
    most_bytes: float = 0.0
    most_models: int = 0
    edge_bytes: float = inf
    edge_models: float = inf

    @property
    def used(self) -> float:
        return sum(resident.size for resident in self.residents)

    def meet_edge(self, wanted: float) -> None:
        """One had to go so that another could come; with it, `wanted` bytes would have been loaded.

        If so many were never seen together, memory was short; else it must have been the number of models.
        """
        if wanted > self.most_bytes:
            self.edge_bytes = max(self.used, self.most_bytes)
        else:
            self.edge_models = max(len(self.residents), self.most_models)

    def grow(self) -> None:
        """What is seen together fits together."""
        self.most_bytes, self.most_models = max(self.most_bytes, self.used), max(self.most_models, len(self.residents))
        self.edge_bytes = max(self.edge_bytes, self.most_bytes)
        self.edge_models = max(self.edge_models, self.most_models)


@dataclass(slots=True)
class _Rate:
    """Events a second; `count` is faded to `at`."""

    count: float = 0.0
    at: float = field(default=-inf)

    def add(self, now: float) -> None:
        self.count, self.at = self.count_at(now) + 1.0, now

    def count_at(self, now: float) -> float:
        return self.count * faded(now - self.at, _RATE_HALF_LIFE) if self.count else 0.0

    def per_second(self, now: float) -> float:
        return self.count_at(now) * log(2.0) / _RATE_HALF_LIFE


class Evictions:
    """Bounded memory: 1,024 servers and 4,096 models, those used last. No clock: `now` is the caller's, seconds."""

    def __init__(self) -> None:
        self._rooms: LruTable[ServerId, _Room] = LruTable(_SERVERS)
        self._sizes: LruTable[ModelName, float] = LruTable(_MODELS)
        self._asked: LruTable[Hashable, _Rate] = LruTable(_MODELS)

    def asked(self, what: Hashable, now: float) -> None:
        """A request for it came: for a model, or for one of its runners."""
        self._asked.use(what, _Rate).add(now)

    def seen(
        self, server: ServerId, residents: Iterable[Resident], now: float, loading: Collection[ModelName] = ()
    ) -> None:
        """A look at what is loaded; `loading`: what our own requests have the server load, and it does not show yet."""
        room = self._rooms.use(server, _Room)
        before = room.residents
        room.residents = tuple(sorted(map(_clamped, residents), key=lambda each: each.expires_at))
        for each in room.residents:
            self._sizes.put(each.model, each.size)
        names = {each.model for each in room.residents}
        known = {each.model for each in before}
        came = sum(each.size for each in room.residents if each.model not in known)
        comes = sum(self._sizes.get(model) or 0.0 for model in loading if model not in names)
        gone = any(each.model not in names and each.expires_at > now + _EARLY for each in before)
        if gone and (names - known or loading):
            room.meet_edge(sum(each.size for each in before) + came + comes)
        room.grow()

    def most_models(self, server: ServerId) -> int:
        """How many models were seen loaded there together, at the most."""
        room = self._rooms.get(server)
        return 0 if room is None else room.most_models

    def forget(self, server: ServerId) -> None:
        """The server is another machine now, or gone."""
        self._rooms.pop(server, None)

    def victims(
        self,
        server: ServerId,
        model: ModelName,
        file_size: float | None,
        busy: Collection[ModelName],
        gone: Collection[ModelName] = (),
        came: Collection[ModelName] = (),
    ) -> Sequence[ModelName]:
        """Who would have to go for the model, in order; idle ones first, then those that are busy.

        `gone` and `came`: what has changed since the last look; who came goes last.
        """
        room = self._rooms.get(server)
        if room is None or not room.residents:
            return ()
        others = {each.model: each.size for each in room.residents if each.model != model and each.model not in gone}
        for name in came:
            if name != model and name not in others:
                others[name] = self._need(name, None)
        need, used, count = self._need(model, file_size), sum(others.values()), len(others)
        leaving: list[ModelName] = []
        for name in sorted(others, key=busy.__contains__):
            if used + need <= room.edge_bytes and count + 1 <= room.edge_models:
                break
            leaving.append(name)
            used, count = used - others[name], count - 1
        return leaving

    def loss(self, asked: Hashable, load: float, waiting: int, now: float, *, elsewhere: bool) -> float:
        """Seconds that others lose when it goes. `load`: what it takes to bring it back; `waiting`: who wait for it."""
        rate = self.rate(asked, now)
        lost = load * (1.0 - exp(-rate * HORIZON) + rate * load / 2.0 + waiting)
        return lost * _ELSEWHERE if elsewhere else lost

    def rate(self, asked: Hashable, now: float) -> float:
        """Requests a second."""
        rate = self._asked.get(asked)
        return rate.per_second(now) if rate is not None else 0.0

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of server, and bytes and number seen together with their edges (null: unknown). They do not fade."""
        rows: list[list[object]] = [
            [server, [room.most_bytes, room.most_models, _known(room.edge_bytes), _known(room.edge_models)]]
            for server, room in self._rooms.items()
        ]
        return rows[-most:]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (server,), plain in rows_of(data, 1, _SERVERS):
            if not isinstance(plain, list) or len(plain) != 4:
                continue
            bytes_, models = sane(plain[0], 0.0, _MOST_BYTES), sane(plain[1], 0.0, 1000.0)
            if bytes_ is None or models is None:
                continue
            edges = [sane(value, least, inf) for value, least in ((plain[2], bytes_), (plain[3], models))]
            room = _Room((), bytes_, int(models), *(inf if edge is None else edge for edge in edges))
            self._rooms.put(ServerId(server), room)

    def _need(self, model: ModelName, file_size: float | None) -> float:
        return self._sizes.get(model) or (file_size or 0.0) * _OVERHEAD


def residents_of(rows: Mapping[ModelName, Mapping[str, object]], end: Callable[[object], float]) -> list[Resident]:
    """What rows of /api/ps say; `end` turns their `expires_at` into the caller's clock."""
    return [
        Resident(model, sane(row.get("size_vram"), 0.0, _MOST_BYTES) or 0.0, end(row.get("expires_at")))
        for model, row in rows.items()
    ]


def _clamped(resident: Resident) -> Resident:
    size = sane(resident.size, 0.0, _MOST_BYTES) or 0.0
    return resident if size == resident.size else Resident(resident.model, size, resident.expires_at)


def _known(edge: float) -> float | None:
    return None if edge == inf else edge
