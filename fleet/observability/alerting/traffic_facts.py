"""What finished requests tell alerts and the verdict: shares of errors, first tokens, stalls, loads, who was asked.

Fed batch by batch, off the data path; read every few seconds, server by server. Bounded: servers and pairs by the
fleet's own (`MOST_PAIRS`), models by those asked for last, kinds of failures per minute.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Final, Protocol

from fleet.breakers.failure_classes import STALLED, class_of, failed
from fleet.breakers.recovery_log import ServerLog
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.observability.alerting.facts import NO_TOKENS, Culprit, FirstTokenTimes, Share, Traffic
from fleet.observability.statistics.quantile_sketch import Sketch, bin_of
from fleet.observability.statistics.request_batch import GroupedRequest, RequestBatch, RequestGroup, first_tokens
from fleet.observability.statistics.request_record import RequestAttempt
from fleet.observability.statistics.time_windows import Series, levels_to

ASKED: Final = 300.0
"""Seconds for which a model counts as asked for."""
LONG: Final = 1_800.0
"""Seconds over which moves of breakers, and loads, are counted."""
MOST_MODELS: Final = 1_024
MOST_PAIRS: Final = 4_096
MOST_LOADS: Final = 1_000
"""Loads of one pair that are remembered."""
MOST_CAUSES: Final = 256
_FEW: Final = 300.0
_QUARTER: Final = 900.0
_OF_SERVERS: Final = ((60.0, _QUARTER),)
"""Whole minutes: there are many servers, and each is read every few seconds."""
_SPANS: Final = (10.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 1_800.0, 3_600.0, 21_600.0)
_MINUTE, _FIVE = _SPANS.index(60.0), _SPANS.index(300.0)
_HALF: Final = 0.5
"""More than this share of the failures is where they come from."""
_INVENTED: Final = {"model_not_found"}
"""The outcome of requests for a name that nobody serves: invented ones shall push out no others."""


class JudgedRequest(GroupedRequest, Protocol):
    """What a finished request says of itself."""

    @property
    def tries(self) -> Sequence[RequestAttempt]: ...


class _Ends:
    """A bucket of ends."""

    __slots__ = ("count", "failed", "rejected")

    def __init__(self) -> None:
        self.count = self.failed = self.rejected = 0

    def add(self, outcomes: Mapping[str, int]) -> None:
        for outcome, number in outcomes.items():
            row = class_of(outcome)
            self.count += number
            self.failed += number * row.alerts
            self.rejected += number * bool(row.queue)

    def merge(self, other: _Ends) -> None:
        self.count += other.count
        self.failed += other.failed
        self.rejected += other.rejected

    def copy(self) -> _Ends:
        made = _Ends()
        made.merge(self)
        return made

    @property
    def share(self) -> Share:
        return Share(self.count, self.failed)


class _Streams:
    """A bucket of streams: how many began and stalled, how long their first token took."""

    __slots__ = ("count", "sketch", "stalls")

    def __init__(self) -> None:
        self.count = self.stalls = 0
        self.sketch = Sketch()

    def merge(self, other: _Streams) -> None:
        self.count += other.count
        self.stalls += other.stalls
        self.sketch.merge(other.sketch)

    def copy(self) -> _Streams:
        made = _Streams()
        made.merge(self)
        return made

    def began(self, waits: Sequence[float]) -> None:
        """First tokens came, after so many seconds each."""
        if waits:
            self.count += len(waits)
            self.sketch.add([bin_of(seconds * 1000) for seconds in waits])

    @property
    def pace(self) -> FirstTokenTimes:
        if not self.count:
            return NO_TOKENS
        p95, p50 = (self.sketch.percentile(share) / 1000 for share in (0.95, 0.5))
        return FirstTokenTimes(self.count, p95, p50)


class _Causes:
    """A bucket of failures, by server, model and outcome."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: Counter[tuple[str, str, str]] = Counter()

    def add(self, server: str, model: str, outcome: str, number: int) -> None:
        key = (server, model, outcome)
        if key in self.numbers or len(self.numbers) < MOST_CAUSES:
            self.numbers[key] += number

    def merge(self, other: _Causes) -> None:
        self.numbers.update(other.numbers)

    def copy(self) -> _Causes:
        made = _Causes()
        made.merge(self)
        return made


class Counts:
    """All of it. `now` is the caller's clock, in seconds, and never runs back."""

    def __init__(self) -> None:
        self.asked: LruTable[ModelName, float] = LruTable(MOST_MODELS)
        """Models by when a request for them last ended."""
        self._ends: Series[_Ends] = Series(_Ends)
        self._causes: Series[_Causes] = Series(_Causes, levels_to(_FEW))
        self._first: Series[_Streams] = Series(_Streams, levels_to(_FEW))
        self._servers: dict[str, Series[_Streams]] = {}
        self._resident: dict[ServerId, Mapping[ModelName, object]] = {}
        self._loads: LruTable[Pair, deque[float]] = LruTable(MOST_PAIRS)
        self._counted: LruTable[Pair, deque[float]] = LruTable(MOST_PAIRS)
        self._totals: Mapping[Pair, int] = {}

    # ---- fed

    def note(self, ended: RequestBatch[JudgedRequest], now: float) -> None:
        """Requests have just finished: a busy fleet has hundreds in each batch."""
        for model in {group.model for group in ended.groups if group.outcomes.keys() != _INVENTED} - {""}:
            self.asked.put(ModelName(model), now)
        self._ends.bucket(now).add(ended.outcomes)
        if bad := {outcome for outcome in ended.outcomes if failed(outcome)}:
            self._note_causes(ended.groups, bad, now)
        if waits := first_tokens(ended.groups):
            self._first.bucket(now).began(waits)
        self._note_tries([attempt for each in ended if each.stream for attempt in each.tries], now)

    def _note_causes(self, groups: Sequence[RequestGroup[JudgedRequest]], bad: Set[str], now: float) -> None:
        causes = self._causes.bucket(now)
        for group in groups:
            for outcome in group.outcomes.keys() & bad:
                causes.add(group.server, group.model, outcome, group.outcomes[outcome])

    def _note_tries(self, tries: Sequence[RequestAttempt], now: float) -> None:
        waits: dict[str, list[float]] = {}
        for each in tries:
            if each.first_byte is not None:
                waits.setdefault(each.server, []).append(max(each.first_byte - each.started, 0.0))
        for server, seconds in waits.items():
            self._streams(server, now).began(seconds)
        for each in tries:
            if each.outcome == STALLED and each.first_byte is not None:
                self._streams(each.server, now).stalls += 1

    def _streams(self, server: str, now: float) -> _Streams:
        series = self._servers.get(server)
        if series is None:
            series = self._servers[server] = Series(_Streams, _OF_SERVERS)
        return series.bucket(now)

    def look(self, server: ServerId, resident: Mapping[ModelName, object] | None, now: float) -> None:
        """What a server has in memory (None: nobody knows); what was not there at the last look was loaded since."""
        if resident is None:
            self._resident.pop(server, None)
            return
        before = self._resident.get(server)
        if resident is before:
            return
        self._resident[server] = resident
        for model in () if before is None else resident.keys() - before.keys():
            self._loads.use(Pair(server, model), _moments).append(now)

    def loaded(self, totals: Mapping[Pair, int], now: float) -> None:
        """What the metrics have counted so far, for the pairs with series of their own: they see requests wait too."""
        before, self._totals = self._totals, totals
        for pair, total in totals.items():
            if (had := before.get(pair, 0)) != total:
                times = total - had if total > had else total
                self._counted.use(pair, _moments).extend([now] * min(times, MOST_LOADS))

    def forget(self, known: Collection[ServerId], now: float) -> None:
        """Keep nothing of servers that are gone, nor of what is long ago."""
        for gone in self._servers.keys() - set(known):
            del self._servers[gone]
        for left in self._resident.keys() - set(known):
            del self._resident[left]
        while self.asked and next(iter(self.asked.values())) < now - ASKED:
            self.asked.popitem(last=False)
        for table in (self._loads, self._counted):
            for pair, loads in list(table.items()):
                while loads and loads[0] < now - LONG:
                    loads.popleft()
                if not loads or pair.server not in known:
                    del table[pair]

    # ---- read

    def first_tokens(self, now: float) -> FirstTokenTimes:
        """The fleet's first-token times over 5 minutes: the one source of what is said of them."""
        whole = _Streams()
        self._first.window(now, _FEW, whole)
        return whole.pace

    def server(self, server: ServerId, now: float) -> tuple[FirstTokenTimes, int, int]:
        """One server over 15 minutes: its first-token time, streams, stalls."""
        whole = _Streams()
        if (series := self._servers.get(server)) is not None:
            series.window(now, _QUARTER, whole)
        return whole.pace, whole.count, whole.stalls

    def loads(self) -> dict[Pair, int]:
        """Loads in half an hour, of pairs with more than one: as many as whoever saw most of them has seen."""
        found: dict[Pair, int] = {}
        for table in (self._loads, self._counted):
            for pair, times in table.items():
                if len(times) > max(found.get(pair, 0), 1):
                    found[pair] = len(times)
        return found

    def traffic(
        self, now: float, servers: Mapping[str, tuple[FirstTokenTimes, int, int]], flaps: Mapping[Pair, int]
    ) -> Traffic:
        """Everything, with what was read server by server."""
        windows = self._ends.windows(now, _SPANS, _Ends())
        causes = _Causes()
        self._causes.window(now, _FEW, causes)
        start, minute = windows[_MINUTE]
        minutes5, minutes30, hour, hours6 = (window for _, window in windows[_FIVE:])
        return Traffic(
            minutes5=minutes5.share,
            minutes30=minutes30.share,
            hour=hour.share,
            hours6=hours6.share,
            lately=tuple(window.share for _, window in windows[:_FIVE]),
            culprit=culprit_of(causes.numbers),
            per_second=minute.count / max(now - start, 1.0),
            rejected=minutes5.rejected,
            first=self.first_tokens(now),
            servers={name: pace for name, (pace, _, _) in servers.items() if pace.count},
            streams=sum(streams for _, streams, _ in servers.values()),
            stalls=sum(stalls for _, _, stalls in servers.values()),
            flaps=flaps,
            loads=self.loads(),
        )


def culprit_of(causes: Mapping[tuple[str, str, str], int]) -> Culprit | None:
    """Where most failures come from, by server, model and outcome: a server, or a model that fails on several.

    A server is named with the model if that has more than half of its failures.
    """
    servers, models = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for (server, model, outcome), number in causes.items():
        servers[server, outcome] += number
        models[model, outcome] += number
    if not servers:
        return None
    (server, outcome), number = servers.most_common(1)[0]
    (model, how), whole = models.most_common(1)[0]
    if model and whole > number and number <= whole * _HALF:
        return Culprit("", how, whole, model)
    own = {each[1]: many for each, many in causes.items() if (each[0], each[2]) == (server, outcome)}
    most = max(own, key=own.__getitem__)
    return Culprit(server, outcome, number, most if own[most] > number * _HALF else "")


def _moments() -> deque[float]:
    return deque(maxlen=MOST_LOADS)


def flaps_of(page: ServerLog, now: float) -> dict[Pair, int]:
    """How often each breaker of a server moved in half an hour."""
    if page.moved_at is None or page.moved_at < now - LONG:
        return {}
    return dict(Counter(move.pair for move in page.moves if move.at >= now - LONG))
