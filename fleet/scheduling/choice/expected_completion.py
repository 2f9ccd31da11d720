"""The policy that chooses by expected completion: wait, load, prefill and decode in seconds, and what others lose.

One unit and no weights. What each term is and what it is wrong about stands with its estimator in
`fleet.scheduling.estimates`; here they become a price. An operator's priority is a bonus of a second a level.

A load begins only when what has to leave for it is idle: Ollama would let everybody behind it wait meanwhile, and lets
who uses the old runner pass, so that a busy one never leaves. Whoever has earned a load therefore claims the server:
what has to leave gets no new requests until it is idle, or the claim is void.

What is left: one slot for models that get no more, exploration.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.choice.balancing import Parts, Scored
from fleet.scheduling.choice.homes import Homes
from fleet.scheduling.choice.intents import Ahead
from fleet.scheduling.choice.loaded_runners import NO_WISH, Claim, LoadedRunners, Wish
from fleet.scheduling.choice.rents import Rents
from fleet.scheduling.estimates.evictions import HORIZON, MOST_HARM, Evictions, Resident
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.prediction_errors import RatioTold
from fleet.scheduling.estimates.forecast.terms import AnswerTold, Outcome, RequestProfile
from fleet.scheduling.estimates.load import CACHED
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Ticket, TicketKind

_PARTS: Final = ("wait", "load", "prefill", "decode", "eviction", "failure", "bonus")
_SERVERS: Final = 1024
"""Servers that are remembered; more are those that have been removed."""
_MODELS: Final = 4096
_LANES: Final = 8
"""Sets of runner options that are told apart for each model."""
_SELDOM: Final = 1.0
"""Requests within the horizon: a model with fewer may lose its last home to one that others stand in line for."""
_DECODE: Final = 0.1
"""What a second of decoding counts against one before the first token: people read while it goes on. Were it to count
in full, requests would stand in line for the fastest server while slower ones are idle: first tokens come later then
and, from about half load on, complete answers too."""
_PATIENCE: Final = 2.0
_LEAST: Final = 5.0
_LONGEST: Final = 60.0
"""Seconds for which a claim holds: so many times the wait that was expected, and some more, at most."""


def seconds_of(parts: Parts) -> dict[str, float]:
    """What a price consists of, by name: costs in seconds, the whole of the decoding; `bonus` is what is taken off."""
    costs = {name: 0.0 - part for name, part in zip(_PARTS, parts, strict=True)}
    return costs | {"decode": costs["decode"] / _DECODE, "bonus": 0.0 - costs["bonus"]}


class ExpectedCompletion:
    """Prices for the planned choice, and what has to be told so that they stay true."""

    name = "expected_completion"
    parts = _PARTS
    wait = _PARTS.index("wait")
    load = _PARTS.index("load")
    harm = _PARTS.index("eviction")

    def __init__(self, told: RatioTold | None = None) -> None:
        """`told` hears of what predictions were worth."""
        self.estimates = Estimates(told)
        self.evictions = Evictions()
        self.rents = Rents()
        self.homes = Homes()
        self._views: LruTable[ServerId, LoadedRunners] = LruTable(_SERVERS)
        self._lanes: LruTable[ModelName, dict[Hashable, int]] = LruTable(_MODELS)
        self._claims: dict[int, ServerId] = {}
        """The server that a ticket has claimed, by the ticket's number: one each, while it waits."""

    @property
    def prices(self) -> ExpectedCompletion:
        return self

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        """Without a request there is nothing to price."""
        return (0.0,) * len(_PARTS)

    def price(self, ticket: Ticket, server: ServerState, ahead: Ahead, now: float) -> Parts:
        view, profile = self._view(server, now), self._profile(ticket, now)
        others = ahead.others
        beside = sum(self.estimates.takes(server.id, model, many) for model, many in others) if others else 0
        terms = self.estimates.predict(profile, view, now, ahead.alike, beside)
        if server.learns:  # or it would be ready by what was seen some time ago
            self.show_limit(server, ticket.model)
        trust, wait = terms.footing.trust, terms.wait
        harm = self._harm(view, profile, now) if terms.load > 0.0 else 0.0
        if server.holds and (hold := server.holds.get(ticket.model)) is not None:
            wait = max(wait, hold.wait(server.ledger.of_model(ticket.model), now, alone=ticket.alone))
        if terms.load > 0.0 and view.claim is not None and not view.may_go(ticket.model, profile.options):
            wait += view.claim.seconds
        return (
            0.0 - wait,
            0.0 - terms.load * trust,
            0.0 - terms.prefill * trust,
            0.0 - terms.decode * trust * _DECODE,
            0.0 - harm,
            0.0 - terms.footing.failing * terms.footing.lost,
            float(server.spec.priority),
        )

    def least(self, ticket: Ticket, server: ServerState, now: float) -> float:
        """The load, if there has to be one; a second less where it may be cached, so that this is seen first."""
        view, profile = self._view(server, now), self._profile(ticket, now)
        least = 0.0 - server.spec.priority
        if view.serves(ticket.model, profile.options):
            return least - 1.0 if server.id in profile.hits else least
        return least + self.estimates.least_load(server.id, ticket.model, now)

    def has_room(self, ticket: Ticket, server: ServerState) -> bool:
        """Whether the runner may get one more request; of one with other options that is not known."""
        return self.estimates.takes(server.id, ticket.model, 1) > 0 or ticket.lane != 0

    def spares(self, ticket: Ticket, server: ServerState, now: float) -> bool:
        """Whether a load for the ticket there leaves everybody a home whom somebody may soon ask for."""
        view, profile = self._view(server, now), self._profile(ticket, now)
        lost = (self._victim(view, victim, profile) for victim in view.leaving(ticket.model, profile.options))
        return all(elsewhere or self.evictions.rate(asked, now) * HORIZON < _SELDOM for asked, elsewhere in lost)

    def show_limit(self, server: ServerState, model: ModelName) -> bool:
        """Write down with the server how many requests the model's runner takes; True if more than before."""
        return server.show_limit(model, self.estimates.limit(Pair(server.id, model)))

    def learned_slots(self, server: ServerState) -> dict[ModelName, int]:
        """How many requests each runner in memory was seen to serve at once; those that were not seen are left out."""
        runners = {*server.resident, *server.ledger.models()}
        found = {model: self.estimates.slots(Pair(server.id, model)) for model in runners}
        return {model: slots.learned for model, slots in sorted(found.items()) if slots is not None}

    def serves_at_once(self, server: ServerState) -> int | None:
        """How many requests the server serves at once with as many models as were seen in memory together.

        None as long as that is not settled for each runner in memory.
        """
        slots = [self.estimates.slots(Pair(server.id, model)) for model in server.resident]
        settled = [each.known for each in slots if each is not None and each.known is not None]
        if not settled or len(settled) < len(slots):
            return None
        return round(sum(settled) * max(1.0, self.evictions.most_models(server.id) / len(settled)))

    @property
    def doubtful(self) -> bool:
        return bool(self.estimates.doubted)

    def fallback(self, ticket: Ticket, equals: Sequence[Scored], now: float) -> Scored | None:
        """By LMetric, if predictions for one of them are out by a factor of two half of the time."""
        doubted, model = self.estimates.doubted, ticket.model
        if not any((server.id, model) in doubted for server, _ in equals):
            return None
        profile, predict = self._profile(ticket, now), self.estimates.predict
        return min(equals, key=lambda each: predict(profile, self._view(each[0], now), now).metric)

    def claim(self, ticket: Ticket, server: ServerState, wait: float, now: float) -> None:
        """The ticket has earned what it costs to be served there, and waits for it that long.

        If that is for a load whose victims are busy, these get no more requests.
        """
        view, profile = self._view(server, now), self._profile(ticket, now)
        if view.serves(ticket.model, profile.options) or not view.may_go(ticket.model, profile.options):
            return
        leaving = frozenset(view.leaving(ticket.model, profile.options))
        if any(server.ledger.of_model(model) for model in leaving):
            load = self.estimates.loads.seconds(Pair(server.id, ticket.model), view.size_of(ticket.model), now)
            until = now + min(_PATIENCE * wait + _LEAST, _LONGEST)
            view.claim = Claim(ticket.model, profile.options, leaving, load, until)
            self._claims[ticket.number] = server.id

    def begin(self) -> None:
        """Lines are made anew: whoever waits will be named again."""
        self.rents.begin()
        self._claims.clear()
        for view in self._views.values():
            view.claim = None

    def entered(self, ticket: Ticket, now: float) -> None:
        """The ticket waits."""
        self.rents.came(ticket.kind, now)

    def left(self, ticket: Ticket, now: float) -> None:
        """The ticket waits no more."""
        self.rents.went(ticket.kind, now)
        server = self._claims.pop(ticket.number, None)
        if server is not None and (view := self._views.get(server)) is not None:
            view.claim = None

    # ---- what happens

    def arrived(self, ticket: Ticket, profile: RequestProfile, now: float) -> None:
        """A ticket comes, before it is submitted."""
        ticket.profile = profile
        ticket.lane = self._lane(ticket.model, profile.options)
        self.evictions.asked(ticket.model, now)
        self.evictions.asked(ticket.kind, now)

    def sent(self, ticket: Ticket, number: int, server: ServerState, now: float) -> None:
        """A ticket was granted this server, under this number of its lease."""
        view, profile = self._view(server, now), self._profile(ticket, now)
        if ticket.hope is not None:
            self.estimates.errors.note("wait", -ticket.hope.parts[self.wait], now - ticket.hope.at, now)
        terms = self.estimates.predict(profile, view, now)
        if terms.load > 0.0 and not self._joins(view, profile, now):
            view.loads(ticket.model, profile.options, view.leaving(ticket.model, profile.options))
        self.estimates.sent(number, profile, view, terms, now)

    def spoke(self, number: int, server: ServerState, model: ModelName, wish: Wish, now: float) -> None:
        """The first chunk of an answer came (not told of answers in one piece, whose first chunk is their last)."""
        self.estimates.spoke(number, now)
        self.runs(server, model, wish, now)

    def runs(self, server: ServerState, model: ModelName, wish: Wish, now: float) -> None:
        """A runner has answered, so it is loaded, with the options asked for."""
        self._view(server, now).runs(model, wish, now)

    def ended(self, number: int, told: AnswerTold | None, now: float, outcome: Outcome) -> None:
        """An attempt is over, with what its answer said of itself."""
        self.estimates.learn(number, told, now, outcome)

    def shown(self, server: ServerState, residents: list[Resident], now: float) -> None:
        """A probe has shown what is loaded."""
        self._view(server, now).shown()
        shown = {resident.model for resident in residents}
        loading = [model for model in server.ledger.models() if model not in shown]
        self.evictions.seen(server.id, residents, now, loading)

    def unloaded(self, server: ServerState, model: ModelName, now: float) -> None:
        """A model was thrown out on request, or its runner died."""
        self._view(server, now).unloaded(model)
        self.estimates.reloaded(Pair(server.id, model), now)

    def lost(self, server: ServerState, now: float) -> None:
        """The server is away, or another machine: what it holds, and how many at once, is unknown."""
        self._views.pop(server.id, None)
        self.homes.forget(server.id)
        for model in server.models:
            self.estimates.reloaded(Pair(server.id, model), now)

    # ---- inside

    def _profile(self, ticket: Ticket, now: float) -> RequestProfile:
        """What the ticket is expected to be; of one that nobody has announced, the least that can be said."""
        if ticket.profile is None:
            ticket.profile = self.estimates.profile(("", ticket.model, ""), 0, now, options=NO_WISH)
        return ticket.profile

    def _view(self, server: ServerState, now: float) -> LoadedRunners:
        view = self._views.get(server.id)
        if view is None or view.state is not server:
            view = LoadedRunners(server, self.evictions, self.homes)
            self._views.put(server.id, view)
        view.now = now
        return view

    def _lane(self, model: ModelName, wish: Hashable) -> int:
        """A number for each of the first few sets of options asked for of a model, and one for all others."""
        if wish == NO_WISH:
            return 0
        lanes = self._lanes.use(model, dict)
        if wish not in lanes and len(lanes) < _LANES:
            lanes[wish] = len(lanes) + 1
        return lanes.get(wish, _LANES + 1)

    def _joins(self, view: LoadedRunners, profile: RequestProfile, now: float) -> bool:
        loading = self.estimates.loads.loading(Pair(view.id, profile.model), now)
        return loading and view.joins(profile.model, profile.options)

    def _harm(self, view: LoadedRunners, profile: RequestProfile, now: float) -> float:
        """What others lose by a load that is not under way yet. A victim is in the page cache when it comes back."""
        if self._joins(view, profile, now):
            return 0.0
        leaving = view.leaving(profile.model, profile.options)
        return min(sum(self._loss(view, victim, profile, now) for victim in leaving), MOST_HARM)

    def _loss(self, view: LoadedRunners, victim: ModelName, profile: RequestProfile, now: float) -> float:
        load = self.estimates.loads.alone(Pair(view.id, victim), view.size_of(victim), now, CACHED)
        asked, elsewhere = self._victim(view, victim, profile)
        waiting = self.rents.waiting(asked)
        return self.evictions.loss(asked, load, waiting, now, elsewhere=elsewhere)

    def _victim(
        self, view: LoadedRunners, victim: ModelName, profile: RequestProfile
    ) -> tuple[ModelName | TicketKind, bool]:
        """What is lost to others, and whether they find it elsewhere.

        A runner that is loaded anew with other options is its own victim, as far as its old ones are concerned.
        """
        if victim != profile.model:
            return victim, self.homes.others(view.id, victim) > 0
        kind = TicketKind(victim, self._lane(victim, view.loaded_wish(victim)), alone=False)
        return kind, self.homes.others_alike(view.id, victim) > 0
