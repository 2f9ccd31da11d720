"""What was learned as plain data and back: it survives a restart of the fleet, and fades for the time in between.

The shape: `{"version": 1, "<estimator>": rows}`, each row names and what is known of them, the latest last. Bounded:
some hundred rows of each kind, about a megabyte. Clients, prompts, failures and slots are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from fleet.scheduling.estimates.forecast.estimates import Estimates

VERSION: Final = 1
_MOST: Final = {
    "prompt_tokens": 1024,
    "answer_tokens": 1024,
    "service": 256,
    "loads": 1024,
    "prefill": 256,
    "decode": 256,
    "hits": 1024,
    "trust": 1024,
}
"""Estimators by their names in `Estimates`, and how many rows of each are kept."""
LONGEST_AWAY: Final = 30 * 86400.0


class _Keeper(Protocol):
    def to_plain(self, now: float, most: int) -> list[list[object]]: ...

    def load_plain(self, data: object, now: float) -> None: ...


def snapshot(estimates: Estimates, now: float) -> dict[str, object]:
    """Everything that is worth keeping, in numbers, strings and lists; nothing in it is shared."""
    plain: dict[str, object] = {"version": VERSION}
    for name, most in _MOST.items():
        plain[name] = _keeper(estimates, name).to_plain(now, most)
    return plain


def restore(data: object, now: float, away: float = 0.0) -> Estimates:
    """Estimates that know what `snapshot` saw, `away` seconds ago; never raises.

    What is absurd, or of another version, is left out: the file may have been written by anybody.
    """
    estimates = Estimates()
    if not isinstance(data, Mapping) or data.get("version") != VERSION:
        return estimates
    then = now - min(max(away, 0.0), LONGEST_AWAY) if away == away else now  # a NaN is no time
    for name in _MOST:
        _keeper(estimates, name).load_plain(data.get(name), then)
    return estimates


def _keeper(estimates: Estimates, name: str) -> _Keeper:
    keeper: _Keeper = getattr(estimates, name)
    return keeper
