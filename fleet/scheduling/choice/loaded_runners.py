"""What is loaded on one server, and with which options: what probes have shown, and what our own requests have changed.

Ollama loads a runner anew for a request whose runner options differ from those that it was loaded with: the context and
a few more (`fleet.protocol.body_fields`). Who asks for none, as all of `/v1` does, asks for the server's own, so that
a runner which somebody had loaded with a context of his choice is loaded anew for him too. `/api/ps` shows nothing but
the context. So the rest is known from our answers: whatever a runner has answered, it was loaded with just that.

What it is wrong about: of a runner that others have loaded, options other than the context are taken to be the server's
own; until the server's own context has been seen, whoever names none is taken to be served by what is there; a context
that shrank to fit is taken for the server's own until the next load.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fleet.common.ids import ModelName, ServerId
from fleet.common.lru_table import LruTable
from fleet.models.load_times import size_of
from fleet.scheduling.choice.homes import Homes
from fleet.scheduling.estimates.evictions import Evictions
from fleet.scheduling.server_state import ServerState

_RECENT: Final = 30.0
"""Seconds for which a runner that has answered counts as loaded although no probe has shown it yet."""
_CONTEXTS: Final = 256
"""Models whose own context is remembered for each server."""


class Wish(NamedTuple):
    """The runner options of a request. `context`: None for the server's own; `others`: by name, sorted."""

    context: int | None = None
    others: tuple[tuple[str, object], ...] = ()


NO_WISH: Final = Wish()


def wish_of(options: Mapping[str, object] | None) -> Wish:
    """What the runner options of a body ask for."""
    if not options:
        return NO_WISH
    context = options.get("num_ctx")
    others = [
        (name, value) for name, value in options.items() if name != "num_ctx" and (name, value) != ("shift", True)
    ]
    return Wish(context if isinstance(context, int) else None, tuple(sorted(others, key=lambda each: each[0])))


@dataclass(slots=True)
class _Runner:
    """One that has answered. `shown`: its context, once a probe has shown it."""

    wish: Wish | None
    answered: float
    shown: object = None


class Claim(NamedTuple):
    """A load that somebody has earned, and that waits until what has to leave for it is idle. Void after `until`."""

    model: ModelName
    wish: Hashable
    leaving: frozenset[ModelName]
    seconds: float
    """Of the load."""
    until: float


@dataclass(slots=True, eq=False)
class LoadedRunners:
    """One server as predictions see it at `now`."""

    state: ServerState
    evictions: Evictions
    homes: Homes
    now: float = 0.0
    claim: Claim | None = None
    gone: set[ModelName] = field(default_factory=set)
    """Those that our own loads have thrown out since the last probe, probably."""
    _runners: dict[ModelName, _Runner] = field(default_factory=dict)
    _coming: dict[ModelName, Hashable] = field(default_factory=dict)
    """What our own requests have the server load, until it has answered."""
    _own: LruTable[ModelName, object] = field(default_factory=lambda: LruTable(_CONTEXTS))
    """The context that the server chooses where nobody names one."""

    @property
    def id(self) -> ServerId:
        return self.state.id

    @property
    def slots(self) -> float:
        return self.state.ledger.capacity

    def size_of(self, model: ModelName) -> int | None:
        return size_of(self.state.models.get(model))

    def serves(self, model: ModelName, wish: Hashable) -> bool:
        """Whether a runner is loaded that fits, and stays for whoever asks now."""
        if model in self.gone or (
            self.claim is not None and model in self.claim.leaving and not self.may_go(model, wish)
        ):
            return False
        runner = self._runners.get(model)
        if runner is None or (runner.shown is None and self.now - runner.answered >= _RECENT):
            row = self.state.resident.get(model)
            return row is not None and self._fits(wish, None, model, row.get("context_length"))
        return runner.wish == wish or self._fits(wish, runner.wish, model, runner.shown)

    def joins(self, model: ModelName, wish: Hashable) -> bool:
        """Whether a load of the model that is under way is one with these options."""
        return self._coming.get(model, wish) == wish

    def serves_alone(self, model: ModelName) -> bool:
        return False

    def leaving(self, model: ModelName, wish: Hashable) -> Collection[ModelName]:
        """Whose runners have to go for one of the model; its own, if one is loaded that does not fit."""
        came = self._runners.keys() | self._coming.keys()
        size, open_there = self.size_of(model), self.state.ledger.models()
        leaving = self.evictions.victims(self.id, model, size, open_there, self.gone, came)
        coming = self._coming.get(model, wish)
        loaded = model not in self.gone and (model in self._runners or model in self.state.resident)
        return (*leaving, model) if loaded or coming != wish else leaving

    def loaded_wish(self, model: ModelName) -> Hashable:
        """With which options it is loaded, as far as anybody knows; of one that others have loaded by its context."""
        runner = self._runners.get(model)
        if runner is not None and runner.wish is not None:
            return runner.wish
        shown = self.state.resident.get(model, {}).get("context_length")
        own = self._own.get(model)
        return Wish(shown) if isinstance(shown, int) and own not in (None, shown) else NO_WISH

    def may_go(self, model: ModelName, wish: Hashable) -> bool:
        """Whether nobody has claimed the server for anything but this."""
        claim = self.claim
        if claim is not None and self.now >= claim.until:
            claim = self.claim = None
        return claim is None or (model == claim.model and wish == claim.wish)

    # ---- what happens

    def loads(self, model: ModelName, wish: Hashable, victims: Collection[ModelName]) -> None:
        """A request was sent that has the server load a model, and throw others out."""
        self.gone.add(model)
        self.gone.update(victims)
        for each in (model, *victims):
            self._runners.pop(each, None)
            self.homes.drop(self.id, each)
        self._coming[model] = wish
        self.homes.add(self.id, model, wish)
        if self.claim is not None and self.claim[:2] == (model, wish):
            self.claim = None

    def runs(self, model: ModelName, wish: Wish, now: float) -> None:
        """A runner has answered."""
        known = self._runners.get(model)
        if known is None or known.wish != wish:
            self._runners[model] = _Runner(wish, now)
            self.homes.add(self.id, model, wish)
        else:
            known.answered = now
        self.gone.discard(model)
        if self._coming.get(model) == wish:
            del self._coming[model]

    def shown(self) -> None:
        """A probe has put what is loaded into the server's state."""
        resident, open_there = self.state.resident, self.state.ledger.of_model
        self.gone.clear()
        for model, runner in list(self._runners.items()):
            row = resident.get(model)
            if row is None:
                if not open_there(model):
                    del self._runners[model]
                continue
            context = row.get("context_length")
            if runner.shown is not None and context != runner.shown:
                runner.wish = None  # somebody else has had it loaded anew
            runner.shown = context
            if runner.wish is not None and runner.wish.context is None:
                self._own.put(model, context)
        for model in [model for model in self._coming if not open_there(model)]:
            del self._coming[model]
        held = resident.keys() | self._runners.keys() | self._coming.keys()
        self.homes.put(self.id, {model: self._coming.get(model, self.loaded_wish(model)) for model in held})

    def unloaded(self, model: ModelName) -> None:
        """It was thrown out on request, or died."""
        self._runners.pop(model, None)
        self._coming.pop(model, None)
        self.homes.drop(self.id, model)
        self.gone.add(model)

    # ---- inside

    def _fits(self, wish: Hashable, loaded: Wish | None, model: ModelName, shown: object) -> bool:
        """Whether a runner of this context serves; `loaded`: what it was loaded with, None if nobody knows.

        Ollama compares the numbers, so whoever names the server's own context is served by who names none. It cuts what
        is asked for to what the model was trained for, so a smaller one shown stands for everything beyond it.
        """
        wish = wish if isinstance(wish, Wish) else NO_WISH
        own = self._own.get(model)
        if wish.others != (() if loaded is None else loaded.others):
            return False
        if loaded is None:
            return own in (None, shown) if wish.context is None else wish.context == shown
        if wish.context is not None and loaded.context is not None and isinstance(shown, int):
            return shown < min(wish.context, loaded.context)
        asked, has = (own if context is None else context for context in (wish.context, loaded.context))
        return asked is not None and asked == has
