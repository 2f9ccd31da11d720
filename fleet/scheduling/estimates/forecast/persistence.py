"""What was learned as rows of plain data and back: it survives a restart of the fleet, and fades for the time between.

A row is names, then what is known of them; the latest stands last. Bounded: some hundred rows and 256 thousand
characters of names for each estimator, about a megabyte in all. Clients, prompts, failures and slots are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.estimates.evictions import Evictions
from fleet.scheduling.estimates.forecast.estimates import Estimates

Wanted = Callable[[ServerId | None, ModelName | None], bool]
"""Whether what is known of a server, a model or a pair is to be kept; None: the row names none."""

_KEPT: Final = {
    "prompt_tokens": (1024, "m"),
    "answer_tokens": (1024, "m"),
    "service": (256, "m"),
    "loads": (1024, "sm"),
    "prefill": (256, "sm"),
    "decode": (256, "sm"),
    "hits": (1024, "s"),
    "trust": (1024, "sm"),
    "evictions": (1024, "s"),
}
"""Estimators by name, how many rows of each are kept, and what those begin with: a server, a model."""
ESTIMATORS: Final = tuple(_KEPT)
_MOST_NAMES: Final = 256 << 10
"""Characters of all names in the rows of one estimator: they are the servers' to invent."""


class _Keeper(Protocol):
    def to_plain(self, now: float, most: int) -> list[list[object]]: ...

    def load_plain(self, data: object, now: float) -> None: ...


class LearnedRows:
    """The rows of each estimator, by its name in `ESTIMATORS`; nothing in them is shared.

    Only what is `wanted` is given and taken. Both raise KeyError for other names.
    """

    def __init__(self, estimates: Estimates, evictions: Evictions) -> None:
        self._keepers: dict[str, _Keeper] = {
            name: evictions if name == "evictions" else getattr(estimates, name) for name in ESTIMATORS
        }

    def snapshot(self, name: str, now: float, wanted: Wanted) -> list[list[object]]:
        """Everything that is worth keeping, in numbers, strings and lists."""
        most, kinds = _KEPT[name]
        rows: list[list[object]] = []
        room = _MOST_NAMES
        for row in reversed(self._keepers[name].to_plain(now, most)):
            room -= sum(len(str(each)) for each in row[: len(kinds)])
            if room < 0:
                break
            if _asked_for(row, kinds, wanted):
                rows.append(row)
        return rows[::-1]

    def restore(self, name: str, rows: list[object], then: float, wanted: Wanted) -> None:
        """Learn what `snapshot` saw at `then`, which may lie before the caller's clock began.

        What is absurd is left out: the file may have been written by anybody.
        """
        most, kinds = _KEPT[name]
        known = [row for row in rows[-most:] if isinstance(row, list) and _asked_for(row, kinds, wanted)]
        self._keepers[name].load_plain(known, then)


def _asked_for(row: list[object], kinds: str, wanted: Wanted) -> bool:
    names = {kind: name for kind, name in zip(kinds, row, strict=False) if isinstance(name, str)}
    if len(names) < len(kinds):
        return False
    server, model = names.get("s"), names.get("m")
    return wanted(ServerId(server) if server else None, ModelName(model) if model else None)
