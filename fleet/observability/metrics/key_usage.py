"""Who uses the fleet, for Prometheus: requests and tokens by the name of the API key, never by the key.

The first `most` names have a series of their own and keep it, as counters must not run back; the rest is `other`. Only
names of keys that were found good come here, so a stranger cannot fill the table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fleet.observability.metrics.definitions import OTHER
from fleet.observability.metrics.instruments import Table
from fleet.observability.metrics.label_values import outcome_word
from fleet.security.roles import ANONYMOUS


class KeyedRequest(Protocol):
    """What a finished request says of who asked for it; `by` is empty without a key."""

    by: str
    outcome: str
    prompt_tokens: int | None
    output_tokens: int | None


@dataclass(slots=True, eq=False)
class OfKey:
    """The series of one key."""

    outcomes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    prompt: int = 0
    output: int = 0


class KeyMeter:
    """All of them."""

    def __init__(self, most: int = 50) -> None:
        self.series: Table[str, OfKey] = Table(OfKey, lambda name: False)
        self.series.most = most

    def note(self, ended: Sequence[KeyedRequest]) -> None:
        """Count requests that have just finished."""
        for each in ended:
            name = each.by or ANONYMOUS
            own = self.series.own(name) if name != OTHER else None  # a key may be called so
            series = own or self.series.shared(OTHER)
            series.outcomes[outcome_word(each.outcome)] += 1
            series.prompt += each.prompt_tokens or 0
            series.output += each.output_tokens or 0
