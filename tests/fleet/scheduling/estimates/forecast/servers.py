"""A server and an answer as predictions see them, and requests from their beginning to their end."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.estimates.affinity.prompt_links import PromptLink
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.terms import Outcome, Terms
from tests.fleet.scheduling.estimates.pairs import GB, M

ASKER = ("ann", M, "/api/chat")


@dataclass
class KnownServer:
    """`loaded`: what is loaded, with any options."""

    id: ServerId
    loaded: set[ModelName] = field(default_factory=lambda: {M})
    slots: float = 8.0
    size: int | None = 4 * GB
    leaves: tuple[ModelName, ...] = ()
    alone: bool = False

    def size_of(self, model: ModelName) -> int | None:
        return self.size

    def serves(self, model: ModelName, options: Hashable) -> bool:
        return model in self.loaded

    def serves_alone(self, model: ModelName) -> bool:
        return self.alone

    def joins(self, model: ModelName, options: Hashable) -> bool:
        return True

    def leaving(self, model: ModelName, options: Hashable) -> Sequence[ModelName]:
        return self.leaves


@dataclass
class Told:
    """What an answer says of itself."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_seconds: float | None = None
    prompt_seconds: float | None = None
    output_seconds: float | None = None
    total_seconds: float | None = None


@dataclass
class SimulatedFleet:
    """Requests one after another; `rate` and `step` are the truth: tokens of prompt a second, seconds per token."""

    estimates: Estimates = field(default_factory=Estimates)
    now: float = 0.0
    number: int = 0

    def serve(
        self,
        server: KnownServer,
        *,
        size: int = 2000,
        tokens: int = 600,
        answer: int = 100,
        rate: float = 500.0,
        step: float = 0.05,
        cached: float = 0.0,
        load: float = 0.0,
        links: Sequence[PromptLink] = (),
        outcome: Outcome = "well",
    ) -> Terms:
        """One request; what had been predicted for it."""
        self.number += 1
        request = self.estimates.profile(ASKER, size, self.now, links=links)
        terms = self.estimates.predict(request, server, self.now)
        self.estimates.sent(self.number, request, server, terms, self.now)
        prefill, decode = tokens * (1 - cached) / rate, answer * step
        self.now += load + prefill
        self.estimates.spoke(self.number, self.now)
        self.now += decode
        told = Told(tokens, answer, load or 0.002, prefill, decode, load + prefill + decode)
        self.estimates.learn(self.number, told, self.now, outcome)
        self.now += 1.0
        return terms
