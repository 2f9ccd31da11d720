"""What clients want: requests, and talks of several requests that follow each other. Seconds, tokens, characters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fleet.simulator.text import CHARS_PER_TOKEN, count_tokens

Links = tuple[tuple[int, int], ...]
"""A key for each beginning of a prompt that ends with a message, and its tokens; equal keys mean equal texts."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One request as its client means it, and as only an oracle knows it."""

    number: int
    model: str
    prompt: str
    tokens: int
    """Length of the answer."""
    client: str = "anybody"
    links: Links = ()
    num_ctx: int | None = None
    patience: float = math.inf
    """Seconds after which the client leaves if nothing has come yet."""
    keep_alive: float = math.inf
    answer: str = ""
    """The answer's text, as far as a later prompt repeats it."""

    @property
    def body_bytes(self) -> int:
        return len(self.prompt) + 200

    @property
    def prompt_tokens(self) -> int:
        return count_tokens(self.prompt)


@dataclass(frozen=True, slots=True)
class Turn:
    """A request of a talk: asked so many seconds after the answer before it was read."""

    think: float
    demand: Demand


@dataclass(frozen=True, slots=True)
class Talk:
    """Requests that follow each other; a talk of one is a request by itself. A turn that fails does not end it."""

    start: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class VisibleRequest:
    """What a proxy can see of a request when it comes."""

    number: int
    model: str
    client: str
    body_bytes: int
    links: Links
    num_ctx: int | None
    arrived: float
    excluded: frozenset[str] = frozenset()
    """Servers that it was tried on already."""

    @property
    def guessed_tokens(self) -> int:
        """Prompt tokens by the length of the body, which is all that is known before the answer."""
        return max(1, self.body_bytes // CHARS_PER_TOKEN)


def visible(demand: Demand, arrived: float, excluded: frozenset[str]) -> VisibleRequest:
    """The part of a request that a proxy sees."""
    return VisibleRequest(
        demand.number,
        demand.model,
        demand.client,
        demand.body_bytes,
        demand.links,
        demand.num_ctx,
        arrived,
        excluded,
    )


@dataclass(slots=True)
class Progress:
    """How far a request has come, and what became of it."""

    demand: Demand
    arrived: float
    settled: bool = True
    """Whether it counts: what comes before the fleet has warmed up does not."""
    first: float | None = None
    ended: float | None = None
    outcome: str = ""
    """`completed`, `left`, or why it failed; empty while it is open."""
    attempts: int = 0
    excluded: frozenset[str] = frozenset()
    refusals: list[object] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return self.outcome not in ("completed", "left")
