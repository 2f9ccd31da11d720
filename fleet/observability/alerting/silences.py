"""Silences: rules (of one subject, or of all) whose alerts nobody shall be called for, until a time of day."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

MOST: Final = 200
LONGEST: Final = 366 * 86_400.0
"""Seconds that a silence may last."""
TEXT: Final = 256


@dataclass(frozen=True, slots=True)
class Silence:
    """One of them. Epoch seconds; an empty `subject` stands for all subjects of the rule."""

    id: str
    rule: str
    subject: Mapping[str, str]
    until: float
    by: str
    at: float
    why: str = ""

    def covers(self, subject: Mapping[str, str]) -> bool:
        """Whether it is about an alert of its rule with this subject: everything that it names must be so."""
        return all(subject.get(name) == value for name, value in self.subject.items())

    def document(self) -> dict[str, Any]:
        """As it is kept: plain JSON."""
        return {**asdict(self), "subject": dict(self.subject)}

    @classmethod
    def read(cls, key: str, document: Mapping[str, Any]) -> Silence:
        """What was kept. Raises KeyError, TypeError and ValueError for what makes no sense."""
        subject = document["subject"]
        if not isinstance(subject, dict):
            raise TypeError("subject is no object")
        named = {_text(name): _text(value) for name, value in subject.items()}
        words = {name: _text(document[name]) for name in ("rule", "by", "why")}
        return cls(key, subject=named, until=_epoch(document["until"]), at=_epoch(document["at"]), **words)


class Silences:
    """All that hold, by id; at most `MOST`. Their ends are times of day.

    `changed` is told of each that begins or ends: so that it can be kept.
    """

    def __init__(self, changed: Callable[[str], None] = lambda key: None) -> None:
        self._changed = changed
        self._held: dict[str, Silence] = {}
        self._by_rule: dict[str, dict[str, Silence]] = {}

    def __iter__(self) -> Iterator[Silence]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str) -> Silence | None:
        """The one with this id, if it holds."""
        return self._held.get(key)

    def add(self, silence: Silence) -> bool:
        """Let one hold; False: there are too many."""
        if len(self._held) >= MOST and silence.id not in self._held:
            return False
        self._drop(silence.id)
        self._held[silence.id] = silence
        self._by_rule.setdefault(silence.rule, {})[silence.id] = silence
        self._changed(silence.id)
        return True

    def lift(self, key: str) -> Silence | None:
        """End one; None: there is none."""
        silence = self._drop(key)
        if silence is not None:
            self._changed(key)
        return silence

    def expire(self, at: float) -> None:
        """Forget those that have come to their end."""
        for key in [key for key, silence in self._held.items() if silence.until <= at]:
            self.lift(key)

    def until(self, rule: str, subject: Mapping[str, str]) -> float | None:
        """When the last of the silences about such an alert ends; None: there is none."""
        held = self._by_rule.get(rule)
        return max((each.until for each in held.values() if each.covers(subject)), default=None) if held else None

    def _drop(self, key: str) -> Silence | None:
        silence = self._held.pop(key, None)
        if silence is not None:
            of_rule = self._by_rule[silence.rule]
            del of_rule[key]
            if not of_rule:
                del self._by_rule[silence.rule]
        return silence


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise ValueError("no text")
    return value


def _epoch(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("no moment")
    return float(value)
