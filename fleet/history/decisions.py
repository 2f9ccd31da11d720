"""What past decisions tell together: how often each server was chosen, how it scored, and what each part changed.

A part's effect is found by scoring the same candidates again without it, not from how it varies with something else.
What it is wrong about: without the part, earlier decisions would have gone elsewhere, and later ones found another
fleet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

FEWEST: Final = 20
"""Candidates from which on a correlation is told."""


class PastDecision(Protocol):
    """A decision (`scheduler.decisions.Decision`). The sum of a candidate's parts is its score, and the largest wins.

    One that was alone has no parts. `parts` has their names.
    """

    @property
    def model(self) -> str: ...
    @property
    def policy(self) -> str: ...
    @property
    def chosen(self) -> str: ...
    @property
    def parts(self) -> Sequence[str]: ...
    @property
    def candidates(self) -> Sequence[tuple[str, Sequence[float]]]: ...


@dataclass(slots=True)
class Selections:
    """How often a server was chosen, for which models, and with which scores, as far as there were any."""

    total: int = 0
    by_model: dict[str, int] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)


def selections(decisions: Iterable[PastDecision]) -> dict[str, Selections]:
    """By server, those that were chosen."""
    found: dict[str, Selections] = {}
    for decision in decisions:
        server = found.setdefault(decision.chosen, Selections())
        server.total += 1
        server.by_model[decision.model] = server.by_model.get(decision.model, 0) + 1
        if parts := parts_of(decision, decision.chosen):
            server.scores.append(sum(parts))
    return found


def parts_of(decision: PastDecision, server: str) -> Sequence[float]:
    """What the score of a server was made of; nothing if it was no candidate, or alone."""
    return next((parts for each, parts in decision.candidates if each == server), ())


def position_of(decision: PastDecision, server: str) -> int | None:
    """The place of a server among the candidates by their scores, from 1; None if it had no score."""
    own = parts_of(decision, server)
    if not own:
        return None
    return 1 + sum(1 for _, parts in decision.candidates if parts and sum(parts) > sum(own))


@dataclass(slots=True)
class Effect:
    """What a part did. `changed`: decisions, of `compared`, in which another would have been first without it."""

    compared: int = 0
    changed: int = 0
    values: list[float] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)

    @property
    def correlation(self) -> float | None:
        """Of the part with being chosen, -1 to 1, over all candidates; None if it never varied, or of few."""
        return _correlation(self.values, self.chosen)


def effects(decisions: Iterable[PastDecision]) -> dict[str, Effect]:
    """By part, over the decisions in which there was a choice."""
    found: dict[str, Effect] = {}
    for decision in decisions:
        scored = [(server, parts) for server, parts in decision.candidates if len(parts) == len(decision.parts)]
        if len(scored) < 2:
            continue
        sums = [sum(parts) for _, parts in scored]
        for place, name in enumerate(decision.parts):
            effect = found.setdefault(name, Effect())
            without = [whole - parts[place] for whole, (_, parts) in zip(sums, scored, strict=True)]
            effect.compared += 1
            effect.changed += without[sums.index(max(sums))] < max(without) - 1e-9
            effect.values += [parts[place] for _, parts in scored]
            effect.chosen += [float(server == decision.chosen) for server, _ in scored]
    return found


def _correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(one) < FEWEST or not all(map(math.isfinite, one)):
        return None
    mean, mean_other = math.fsum(one) / len(one), math.fsum(other) / len(other)
    spread = math.fsum((each - mean) ** 2 for each in one) * math.fsum((each - mean_other) ** 2 for each in other)
    if spread <= 1e-18:
        return None
    both = math.fsum((a - mean) * (b - mean_other) for a, b in zip(one, other, strict=True))
    return max(-1.0, min(1.0, both / math.sqrt(spread)))
