"""What a prediction asks for, and what it gives: the words that policies and estimates share."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import msgspec

from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.estimates.affinity.prompt_links import PromptLink
from fleet.scheduling.estimates.answer_tokens import Asker

TERMS: Final = ("wait", "load", "prefill", "decode", "done")
Outcome = Literal["well", "failed", "left", "busy"]
"""`left`: the client went away or the request was withdrawn, which says nothing about the server; `busy`: the server
had enough to do, which says how much it takes."""


class ServerView(Protocol):
    """What a prediction asks of a server."""

    @property
    def id(self) -> ServerId: ...

    @property
    def slots(self) -> float:
        """The most that may be open there, whatever the model; infinite without a cap."""
        ...

    def size_of(self, model: ModelName) -> int | None:
        """Bytes of the model; None if unknown."""
        ...

    def serves(self, model: ModelName, options: Hashable) -> bool:
        """Whether a runner is loaded that fits these options."""
        ...

    def serves_alone(self, model: ModelName) -> bool:
        """Whether its runners begin with one slot: models for embeddings, and families that Ollama forces to one."""
        ...

    def joins(self, model: ModelName, options: Hashable) -> bool:
        """Whether a load of the model that is under way there is one with these options."""
        ...

    def leaving(self, model: ModelName, options: Hashable) -> Collection[ModelName]:
        """Whose runners have to go before it can be loaded with these options; its own too, if it has others."""
        ...


class AnswerTold(Protocol):
    """What an answer said of itself; None where its dialect does not. Seconds (see `dialects.base.Statistics`)."""

    @property
    def prompt_tokens(self) -> int | None: ...

    @property
    def output_tokens(self) -> int | None: ...

    @property
    def load_seconds(self) -> float | None: ...

    @property
    def prompt_seconds(self) -> float | None: ...

    @property
    def output_seconds(self) -> float | None: ...

    @property
    def total_seconds(self) -> float | None: ...


class Footing(msgspec.Struct, gc=False, frozen=True):
    """How far the predictions for one pair are to be trusted: see `trust` and `failure_cost`.

    `failing` is a probability, `lost` seconds. Shared by all predictions for the pair until something is learned.
    """

    trust: float = 1.0
    reliable: bool = True
    failing: float = 0.0
    lost: float = 0.0


class Terms(msgspec.Struct, gc=False):
    """One prediction, in seconds and before the correction by `footing.trust`.

    `metric` is LMetric's: among servers that can begin at once it decides, if one of them is not on a reliable footing.
    """

    wait: float
    load: float
    prefill: float
    decode: float
    metric: float
    footing: Footing

    @property
    def first_token(self) -> float:
        """Seconds until the first token."""
        return self.wait + (self.load + self.prefill) * self.footing.trust

    @property
    def done(self) -> float:
        """Seconds until the last."""
        return self.wait + (self.load + self.prefill + self.decode) * self.footing.trust

    def risk(self, next_best: float) -> float:
        """Seconds to add because it may fail; `next_best`: what it takes elsewhere then."""
        return self.footing.failing * (self.footing.lost + next_best)


@dataclass(slots=True, eq=False)
class RequestProfile:
    """What is known of a request before it is sent. Tokens; `hits`: those that each server probably has cached."""

    model: ModelName
    asker: Asker
    size: int
    tokens: float
    answer: float
    options: Hashable = None
    links: Sequence[PromptLink] = ()
    session: int | None = None
    hits: Mapping[ServerId, tuple[float, float]] = field(default_factory=dict)
    """Expected tokens, and the age of what is cached."""
