"""A breaker as plain data and back: to go on after a crash, and to be kept over a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict

import msgspec

from fleet.breakers.gate import Gate
from fleet.breakers.state_machine import Breaker
from fleet.breakers.values import BreakerSettings, BreakerState, ErrorWindow, FailureRun, Transition
from fleet.common.ids import Pair
from fleet.common.randomness import Chance

_PLAIN: Final = (
    "why",
    "forced_by",
    "born",
    "failed_recoveries",
    "successes",
    "attempts",
    "total",
    "total_successes",
    "last_kind",
)
_TIMES: Final = ("since", "struck_at", "looked_at", "silent_since", "last_success", "last_failure")

_Word = Literal["closed", "open", "half-open"]


class Snapshot(TypedDict):
    """The shape of what `snapshot` makes."""

    why: str
    forced_by: str | None
    born: int
    failed_recoveries: int
    successes: int
    attempts: int
    total: int
    total_successes: int
    last_kind: str
    since: float
    struck_at: float
    looked_at: float
    silent_since: float
    last_success: float | None
    last_failure: float | None
    state: _Word
    retry_at: float | None
    run: tuple[float, float, float, int]
    window: list[tuple[float, float, float]]
    kinds: dict[str, int]
    history: list[tuple[float, _Word, _Word, str]]


def snapshot(breaker: Breaker) -> dict[str, Any]:
    """Everything but pair, settings and permits, in numbers, strings, lists and None; nothing in it is shared."""
    data: dict[str, Any] = {name: getattr(breaker, name) for name in (*_PLAIN, *_TIMES)}
    run, retry_at = breaker.run, breaker.gate.retry_at
    data["state"] = breaker.state.value
    data["retry_at"] = retry_at if math.isfinite(retry_at) else None
    data["run"] = [run.strikes, run.transient, run.crashes, run.length]
    data["window"] = [list(bucket) for bucket in breaker.window.buckets]
    data["kinds"] = dict(breaker.kinds)
    data["history"] = [[t.at, t.came_from.value, t.to.value, t.why] for t in breaker.history]
    return data


def restore(
    pair: Pair, settings: BreakerSettings, dice: Chance, gate: Gate, data: Mapping[str, Any], shift: float = 0.0
) -> Breaker:
    """The breaker that `snapshot` saw, showing its verdict at `gate` (whose permits stay if it shows it already).

    `shift` seconds are added to every time: the new clock minus the old one. Raises `KeyError`, `TypeError` or
    `ValueError` if the data is not a snapshot.
    """
    breaker = Breaker(pair, settings, dice, gate, state=BreakerState(data["state"]))
    for name in _PLAIN:
        setattr(breaker, name, data[name])
    for name in _TIMES:
        setattr(breaker, name, None if data[name] is None else data[name] + shift)
    strikes, transient, crashes, length = data["run"]
    breaker.run = FailureRun(strikes, transient, crashes, length)
    breaker.window = ErrorWindow([[start + shift, results, failures] for start, results, failures in data["window"]])
    breaker.kinds = dict(data["kinds"])
    breaker.history.extend(
        Transition(at + shift, BreakerState(a), BreakerState(b), why) for at, a, b, why in data["history"]
    )
    retry_at = math.inf if data["retry_at"] is None else data["retry_at"] + shift
    breaker.show(retry_at)
    return breaker


def shifted(data: Mapping[str, Any], shift: float) -> dict[str, Any]:
    """A snapshot with `shift` seconds added to every time in it."""
    moved = dict(data)
    for name in (*_TIMES, "retry_at"):
        moved[name] = None if data[name] is None else data[name] + shift
    moved["window"] = [[start + shift, results, failures] for start, results, failures in data["window"]]
    moved["history"] = [[at + shift, came_from, to, why] for at, came_from, to, why in data["history"]]
    return moved


def checked(data: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot from a file that anybody may have written. Raises ValueError if it is none."""
    return {**msgspec.convert(dict(data), Snapshot)}
