"""The policy that chooses by expected completion: wait, load, prefill and decode in seconds, and what others lose.

One unit and no weights. What each term is and what it is wrong about stands with its estimator in
`fleet.scheduling.estimates`; here they become a price. An operator's priority is a bonus of a second a level.

What is left: runner options beyond the context, drains of what has to leave, one slot for models that get no more,
LMetric where predictions are unreliable, exploration.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.models.load_times import size_of
from fleet.scheduling.choice.balancing import Parts
from fleet.scheduling.estimates.evictions import Evictions, Resident
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.terms import AnswerTold, Outcome, RequestProfile
from fleet.scheduling.estimates.load import CACHED
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Ticket

_PARTS: Final = ("wait", "load", "prefill", "decode", "harm", "risk", "bonus")
_SERVERS: Final = 1024
"""Servers that are remembered; more are those that have been removed."""
_RECENT: Final = 30.0
"""Seconds for which a runner that has answered counts as loaded although no probe has shown it yet."""


@dataclass(slots=True, eq=False)
class _View:
    """One server as predictions see it, now: what probes have shown, and what our own requests have changed since."""

    state: ServerState
    answered: dict[ModelName, tuple[float, Hashable]] = field(default_factory=dict)
    """When a runner answered last, and the options it was loaded with, until a probe has shown it."""
    gone: set[ModelName] = field(default_factory=set)
    """Those that our own loads have thrown out since the last probe, probably."""
    now: float = 0.0

    @property
    def id(self) -> ServerId:
        return self.state.id

    @property
    def slots(self) -> float:
        return self.state.ledger.capacity

    def size_of(self, model: ModelName) -> int | None:
        return size_of(self.state.models.get(model))

    def serves(self, model: ModelName, options: Hashable) -> bool:
        """`options`: the context that the request asks for; None takes what is loaded."""
        answered = self.answered.get(model)
        if answered is not None and self.now - answered[0] < _RECENT:
            return options is None or options == answered[1]
        row = self.state.resident.get(model)
        if row is None or model in self.gone:
            return False
        return options is None or options == row.get("context_length")

    def serves_alone(self, model: ModelName) -> bool:
        return False

    def drain_seconds(self, model: ModelName) -> float:
        return 0.0


def asked_context(runner: Mapping[str, object] | None) -> Hashable:
    """The context that runner options ask for; None if they leave it open, or there are none."""
    asked = runner.get("num_ctx") if runner else None
    return asked if isinstance(asked, int) else None


class ExpectedCompletion:
    """Prices for the planned choice, and what has to be told so that they stay true."""

    name = "expected_completion"
    parts = _PARTS
    wait = _PARTS.index("wait")
    harm = _PARTS.index("harm")

    def __init__(self) -> None:
        self.estimates = Estimates()
        self.evictions = Evictions()
        self._views: LruTable[ServerId, _View] = LruTable(_SERVERS)

    @property
    def prices(self) -> ExpectedCompletion:
        return self

    def score(self, server: ServerState, model: ModelName, now: float) -> Parts:
        """Without a request there is nothing to price."""
        return (0.0,) * len(_PARTS)

    def price(self, ticket: Ticket, server: ServerState, ahead: int, now: float) -> Parts:
        view = self._view(server, now)
        terms = self.estimates.predict(self._profile(ticket, now), view, now, ahead)
        trust = terms.footing.trust
        harm = self._harm(view, ticket.model, now) if terms.load > 0.0 else 0.0
        hold = server.holds.get(ticket.model)
        held = 0.0 if hold is None else hold.wait(server.ledger.of_model(ticket.model), now, alone=ticket.alone)
        return (
            0.0 - max(terms.wait, held),
            0.0 - terms.load * trust,
            0.0 - terms.prefill * trust,
            0.0 - terms.decode * trust,
            0.0 - harm,
            0.0 - terms.footing.failing * terms.footing.lost,
            float(server.spec.priority),
        )

    # ---- what happens

    def arrived(self, ticket: Ticket, profile: RequestProfile, now: float) -> None:
        """A ticket comes, before it is submitted."""
        ticket.profile = profile
        self.evictions.asked(ticket.model, now)

    def sent(self, ticket: Ticket, number: int, server: ServerState, now: float) -> None:
        """A ticket was granted this server, under this number of its lease."""
        view, profile = self._view(server, now), self._profile(ticket, now)
        terms = self.estimates.predict(profile, view, now)
        if terms.load > 0.0 and not self.estimates.loads.loading(Pair(server.id, ticket.model), now):
            for gone in (ticket.model, *(victim.model for victim in self._victims(view, ticket.model))):
                view.gone.add(gone)
                view.answered.pop(gone, None)
        self.estimates.sent(number, profile, view, terms, now)

    def spoke(self, number: int, server: ServerState, model: ModelName, options: Hashable, now: float) -> None:
        """The first chunk of an answer came (not told of answers in one piece, whose first chunk is their last)."""
        self.estimates.spoke(number, now)
        self.runs(server, model, options, now)

    def runs(self, server: ServerState, model: ModelName, options: Hashable, now: float) -> None:
        """A runner has answered, so it is loaded, with the options asked for if it has just been."""
        view = self._view(server, now)
        known = view.answered.get(model)
        if options is None:
            options = known[1] if known is not None else server.resident.get(model, {}).get("context_length")
        view.answered[model] = now, options
        view.gone.discard(model)

    def ended(self, number: int, told: AnswerTold | None, now: float, outcome: Outcome) -> None:
        """An attempt is over, with what its answer said of itself."""
        self.estimates.learn(number, told, now, outcome)

    def shown(self, server: ServerState, residents: list[Resident], now: float) -> None:
        """A probe has shown what is loaded."""
        view = self._view(server, now)
        shown = {resident.model for resident in residents}
        view.gone.clear()
        view.answered = {
            model: known
            for model, known in view.answered.items()
            if server.ledger.of_model(model) and model not in shown
        }
        loading = [model for model in server.ledger.models() if model not in shown]
        self.evictions.seen(server.id, residents, now, loading)

    def unloaded(self, server: ServerState, model: ModelName, now: float) -> None:
        """A model was thrown out on request."""
        view = self._view(server, now)
        view.answered.pop(model, None)
        view.gone.add(model)
        self.estimates.reloaded(Pair(server.id, model), now)

    def lost(self, server: ServerState, now: float) -> None:
        """The server is away, or another machine: what it holds, and how many at once, is unknown."""
        self._views.pop(server.id, None)
        for model in server.models:
            self.estimates.reloaded(Pair(server.id, model), now)

    # ---- inside

    def _profile(self, ticket: Ticket, now: float) -> RequestProfile:
        """What the ticket is expected to be; of one that nobody has announced, the least that can be said."""
        if ticket.profile is None:
            ticket.profile = self.estimates.profile(("", ticket.model, ""), 0, now)
        return ticket.profile

    def _view(self, server: ServerState, now: float) -> _View:
        view = self._views.get(server.id)
        if view is None or view.state is not server:
            view = _View(server)
            self._views.put(server.id, view)
        view.now = now
        return view

    def _victims(self, view: _View, model: ModelName) -> list[Resident]:
        server = view.state
        return list(self.evictions.victims(server.id, model, view.size_of(model), server.ledger.models()))

    def _harm(self, view: _View, model: ModelName, now: float) -> float:
        """What others lose by a load that is not under way yet. A victim is in the page cache when it comes back."""
        loads = self.estimates.loads
        if loads.loading(Pair(view.id, model), now):
            return 0.0
        victims = [victim for victim in self._victims(view, model) if victim.model not in view.gone]

        def load(victim: ModelName) -> float:
            return loads.alone(Pair(view.id, victim), view.size_of(victim), now, CACHED)

        return self.evictions.harm(victims, load, now) if victims else 0.0
