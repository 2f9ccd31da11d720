"""What Prometheus counts: monotonic counters and histograms of finished requests and of what the fleet went through.

Every label is bounded: endpoints and outcomes by fixed words; servers, models and pairs by tables that fill first come,
first served, with names that the fleet knows. A name that nobody serves, and what finds no room, is `other`.
What has a series keeps it, since counters must not run back; only when a table is full, and at most once a minute, what
is gone from the fleet makes room. It starts anew if it comes back, which Prometheus takes for a restart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from fleet.breakers.failure_classes import LEFT, REJECTED, STALLED
from fleet.models.load_times import COLD
from fleet.observability.metrics.definitions import OTHER, PREDICTION_BUCKETS
from fleet.observability.metrics.instruments import Histogram, MinuteRate, Table
from fleet.observability.metrics.key_usage import KeyMeter
from fleet.observability.metrics.label_values import outcome_word, status_word
from fleet.observability.metrics.model_loads import LoadWatch
from fleet.observability.metrics.series import OfModel, OfPair, OfServer, RouteSeries
from fleet.observability.statistics.request_batch import GroupedRequest, RequestBatch, RequestGroup, first_tokens
from fleet.observability.statistics.request_record import RequestAttempt

MOST_SERVERS: Final = 1000
MOST_LISTENERS: Final = 16
BETWEEN_SWEEPS: Final = 60.0
LIMITED: Final = ("proxy", "metrics")
"""The listeners with a rate limit. Series whose labels are fixed words start at 0, or their first event is none."""
_POST: Final = "POST"
_COMPLETED: Final = "completed"
_USUAL: Final = ("backend_unreachable", "backend_broke", "connect_timeout", "first_byte_timeout")
_MOST_WAITING: Final = 256
_LONGEST_WAIT: Final = 1.0
_WITHDREW: Final = LEFT | {"queue_cancelled"}
"""How requests end that nobody failed to serve."""

RouteKey = tuple[str, str, str]
PairKey = tuple[str, str]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class MeteredRequest(GroupedRequest, Protocol):
    """What a finished request says of itself. Seconds."""

    request_id: str
    status: int
    queue_seconds: float
    total_seconds: float
    chunks: int
    load_seconds: float | None
    runner: Mapping[str, object] | None

    @property
    def tries(self) -> Sequence[RequestAttempt]: ...


Groups = Sequence[RequestGroup[MeteredRequest]]


class KnownNames(Protocol):
    """What the fleet consists of at the moment. Asked of names that have no series yet, and when there is no room."""

    def server(self, server: str) -> bool:
        """Whether there is such a server."""

    def model(self, model: str) -> bool:
        """Whether any server lists it."""

    def pair(self, server: str, model: str) -> bool:
        """Whether this server lists it."""


class Everything:
    """Knows every name."""

    def server(self, server: str) -> bool:
        return True

    def model(self, model: str) -> bool:
        return True

    def pair(self, server: str, model: str) -> bool:
        return True


class MetricsRegistry:
    """All counters. `now` is the caller's clock and never runs back, `at` is epoch seconds. Nothing here fails.

    `known` says what has a name in the fleet; None: everything. `began` is since when it counts, epoch seconds.
    """

    def __init__(self, known: KnownNames | None = None, began: float = 0.0) -> None:
        self.known: KnownNames = known or Everything()
        self.began = began
        self.exemplars = True
        self.failovers: defaultdict[str, int] = defaultdict(int, dict.fromkeys(_USUAL, 0))
        self.rejected: dict[str, int] = dict.fromkeys(REJECTED.values(), 0)
        self.limits: dict[str, int] = dict.fromkeys(LIMITED, 0)
        self.predictions: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(PREDICTION_BUCKETS))
        """By term, of which there are five."""
        self._now = self._at = self._since = 0.0
        self._waiting: list[RequestBatch[MeteredRequest]] = []
        self._number = 0
        self._swept = -BETWEEN_SWEEPS
        self.routes: Table[RouteKey, RouteSeries] = Table(RouteSeries, lambda key: self._lost(key[2]))
        self.models: Table[str, OfModel] = Table(lambda: OfModel(MinuteRate(self._now)), self._lost)
        self.servers: Table[str, OfServer] = Table(OfServer, self._left)
        self.pairs: Table[PairKey, OfPair] = Table(OfPair, self._parted)
        self.servers.most = MOST_SERVERS
        self.keys = KeyMeter()
        self.loads = LoadWatch(self.of_pair)
        self.bound(200, 400)

    def bound(self, models: int, pairs: int) -> None:
        """How many models, and how many pairs (of server and model, of endpoint and model) have their own series."""
        self.models.most = models
        self.pairs.most = self.routes.most = pairs

    # ---- what happens

    def note(self, ended: RequestBatch[MeteredRequest], now: float, at: float) -> None:
        """Count requests that have just finished: together with some more, which is cheaper, and before anybody looks.

        Whoever asks for a name that has no series yet is not kept waiting: it is now that somebody knows it.
        """
        self.loads.ended(ended, now)
        if self._waiting and now - self._since >= _LONGEST_WAIT:
            self.settle()
        self._since = self._since if self._waiting else now
        self._now, self._at = max(self._now, now), at
        self._waiting.append(ended)
        self._number += len(ended)
        if self._number >= _MOST_WAITING or not self.models.has({group.model for group in ended.groups}):
            self.settle()

    def settle(self) -> None:
        """Count what waits for it; those alike together."""
        if self._waiting:
            ended, self._waiting, self._number = self._waiting, [], 0
            self._count(ended, self._at)

    def _count(self, ended: Sequence[RequestBatch[MeteredRequest]], at: float) -> None:
        pairs: dict[tuple[str, str], list[RequestGroup[MeteredRequest]]] = {}
        for batch in ended:
            for group in batch.groups:
                pairs.setdefault((group.server, group.model), []).append(group)
        routes: dict[tuple[str, str], list[MeteredRequest]] = {}
        models: dict[str, list[RequestGroup[MeteredRequest]]] = {}
        for (server, name), groups in pairs.items():
            model = self._model_label(name, server)
            models.setdefault(model, []).extend(groups)
            _note_pair(self._pair(server, model), groups)
            for group in groups:
                for endpoint, requests in group.endpoints.items():
                    routes.setdefault((endpoint, model), []).extend(requests)
        for (endpoint, model), requests in routes.items():
            self._note_route(self._route(_POST, endpoint, model), requests, at)
        for model, groups in models.items():
            self._note_model(self._of_model(model), groups, at)
        self._note_tries([each for batch in ended for each in batch])

    def called(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a call that no model worked on: listings, management, whatever was refused at the door."""
        route = self._route(method, endpoint, "")
        route.statuses[status_word(status)] += 1
        route.duration.observe((seconds,))

    def limited(self, listener: str) -> None:
        """A request was refused by the rate limit of a listener."""
        if listener not in self.limits and len(self.limits) >= MOST_LISTENERS:
            listener = OTHER
        self.limits[listener] = self.limits.get(listener, 0) + 1

    def predicted(self, term: str, ratio: float) -> None:
        """Of a term of a prediction so much has come, in times of what was predicted."""
        self.predictions[term].observe((ratio,))

    def moved(self, server: str, model: str, to: str, now: float) -> None:
        """A breaker changed its state."""
        self.of_pair(server, model, now).moves[to] += 1

    def of_pair(self, server: str, model: str, now: float) -> OfPair:
        """The series of a pair, or the one that it shares."""
        self._now = max(self._now, now)
        return self._pair(server, self._model_label(model, server))

    # ---- finished requests

    def _note_route(self, route: RouteSeries, group: Sequence[MeteredRequest], at: float) -> None:
        _observe(route.duration, group, [each.total_seconds for each in group], at, self.exemplars)
        for (status, outcome), count in Counter([(each.status, each.outcome) for each in group]).items():
            route.statuses[status_word(status, outcome)] += count
            if (reason := REJECTED.get(outcome)) is not None:
                self.rejected[reason] += count

    def _note_tries(self, ended: Sequence[MeteredRequest]) -> None:
        attempts = Counter([(each.server, each.outcome) for every in ended for each in every.tries])
        for (server, outcome), count in attempts.items():
            self._server(server).attempts[outcome_word(outcome)] += count
        for every in ended:
            if len(every.tries) > 1:
                for each in every.tries[:-1]:
                    self.failovers[outcome_word(each.outcome)] += 1
        self._note_streams([every.tries[-1] for every in ended if every.stream and every.tries])

    def _note_streams(self, last: Sequence[RequestAttempt]) -> None:
        """Streams that began, where their last attempt ran: only that one can have sent anything."""
        waits: dict[str, list[float]] = {}
        for each in last:
            if each.first_byte is not None:
                waits.setdefault(each.server, []).append(max(each.first_byte - each.started, 0.0))
                if each.outcome == STALLED:
                    self._server(each.server).stalls += 1
        for name, seconds in waits.items():
            server = self._server(name)
            server.streams += len(seconds)
            server.first_token.observe(seconds)

    def _note_model(self, model: OfModel, groups: Groups, at: float) -> None:
        ids = self.exemplars
        ended = [each for group in groups for each in group.requests]
        model.pace.add(self._now, sum([group.output for group in groups]))
        lined = [each for each in ended if each.tries or each.queue_seconds]
        _observe(model.wait, lined, [each.queue_seconds for each in lined], at, ids)
        begun = [each for group in groups for each in group.began]
        _observe(model.first_token, begun, first_tokens(groups), at, ids)
        told = [each for each in begun if each.outcome == _COMPLETED and _tokens(each) > 1]
        _observe(model.inter_token, told, [_gap(each) for each in told], at, ids)
        loaded = [each for each in ended if each.load_seconds is not None and each.load_seconds >= COLD]
        _observe(model.load, loaded, [each.load_seconds or 0.0 for each in loaded], at, ids)
        for each in ended:
            if each.outcome != _COMPLETED:
                _note_loss(model, each)

    # ---- labels

    def _model_label(self, model: str, server: str) -> str:
        if not model or model in self.models:
            return model
        known = (server and self.known.pair(server, model)) or self.known.model(model)
        return model if known and self._own(self.models, model) is not None else OTHER

    def _of_model(self, label: str) -> OfModel:
        named = bool(label) and label != OTHER
        return (self._own(self.models, label) if named else None) or self.models.shared(OTHER if named else label)

    def _server(self, server: str) -> OfServer:
        return self._own(self.servers, server) or self.servers.shared(OTHER)

    def _pair(self, server: str, model: str) -> OfPair:
        if server and self._own(self.servers, server) is None:
            server = OTHER
        if not model or model == OTHER or not server or server == OTHER:
            return self.pairs.shared((server, model))
        return self._own(self.pairs, (server, model)) or self.pairs.shared((server, OTHER))

    def _route(self, method: str, endpoint: str, model: str) -> RouteSeries:
        if not model or model == OTHER:
            return self.routes.shared((method, endpoint, model))
        return self._own(self.routes, (method, endpoint, model)) or self.routes.shared((method, endpoint, OTHER))

    def _own(self, table: Table[K, V], key: K) -> V | None:
        """A series of its own; None if there is no room, even after what is gone was forgotten."""
        found = table.own(key)
        if found is None and self._now - self._swept >= BETWEEN_SWEEPS:
            self._swept = self._now
            for each in (self.routes, self.models, self.servers, self.pairs):
                each.sweep()
            found = table.own(key)
        return found

    # ---- what is gone from the fleet

    def _lost(self, model: str) -> bool:
        return bool(model) and model != OTHER and not self.known.model(model)

    def _left(self, server: str) -> bool:
        return bool(server) and server != OTHER and not self.known.server(server)

    def _parted(self, pair: PairKey) -> bool:
        server, model = pair
        if not server or server == OTHER or not model or model == OTHER:
            return self._left(server) or self._lost(model)
        return not self.known.pair(server, model)


def _note_pair(pair: OfPair, groups: Groups) -> None:
    for group in groups:
        for outcome, count in group.outcomes.items():
            pair.outcomes[outcome_word(outcome)] += count
        pair.prompt += group.prompt
        pair.output += group.output


def _note_loss(model: OfModel, ended: MeteredRequest) -> None:
    if ended.outcome in LEFT:
        model.wasted += _tokens(ended)
    elif not ended.server and ended.outcome not in _WITHDREW:
        model.unserved[outcome_word(ended.outcome)] += 1


def _observe(into: Histogram, ended: Sequence[MeteredRequest], values: list[float], at: float, examples: bool) -> None:
    if values:
        into.observe(values, [each.request_id for each in ended] if examples else (), at)


def _tokens(ended: MeteredRequest) -> int:
    """Those that were generated; the pieces that came, if the backend did not get to tell."""
    return ended.output_tokens if ended.output_tokens is not None else ended.chunks


def _gap(ended: MeteredRequest) -> float:
    return max(ended.total_seconds - (ended.first_byte_seconds or 0.0), 0.0) / (_tokens(ended) - 1)
