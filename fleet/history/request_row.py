"""One finished request as it is kept: a wide row, written once and never changed. No word of what was asked or said.

Its number is made of the time at which it ended and a sequence, so that order in time, pages and retention are ranges
of the primary key: (milliseconds since 1970 << 20) | sequence. It fits into 63 bits until the year 2248.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
import orjson

from fleet.breakers.failure_classes import class_of

SEQUENCE_BITS: Final = 20
_LAST: Final = (1 << 63 - SEQUENCE_BITS) - 1
"""The last millisecond that has a number."""
OUTCOME_CLASSES: Final = ("answered", "refused", "failed", "left")
"""`refused`: not answered, for good reason or because somebody wanted it. `failed`: the fleet or a server did wrong."""


class AttemptRow(msgspec.Struct, gc=False, frozen=True):
    """One attempt of a request that had several. `after`: seconds since the request came; `seconds`: how long it took.

    `first_byte`: seconds from the attempt's start; None if nothing came.
    """

    server: str
    outcome: str
    after: float
    seconds: float
    first_byte: float | None


class RequestRow(msgspec.Struct, gc=False, frozen=True):
    """A finished request. Seconds; `began` since 1970; None: not known, or there was none.

    `slot`: how long its attempts held slots, together; `wasted`: how much of that gave nobody an answer. `client` is
    the name of a key or a keyed hash of an address (see `client_name`). `options`: a fingerprint of the runner options.
    """

    request: str
    trace: str | None
    began: float
    queue: float
    load: float | None
    first_byte: float | None
    total: float
    slot: float
    wasted: float
    endpoint: str
    model: str
    server: str
    client: str
    outcome: str
    status: int
    prompt_tokens: int | None
    output_tokens: int | None
    stream: bool
    tries: int = 1
    options: str | None = None
    attempts: Sequence[AttemptRow] = ()
    """All of them, if there was more than one."""

    @property
    def outcome_class(self) -> str:
        """What the outcome counts as: one of `OUTCOME_CLASSES`."""
        return outcome_class(self.outcome)

    @property
    def cold(self) -> bool:
        """Whether it waited for a load."""
        return self.load is not None and self.load >= COLD


COLD: Final = 0.1
"""Seconds of loading from which on a model was loaded for a request: less is what Ollama takes to look."""


def outcome_class(outcome: str) -> str:
    """One of `OUTCOME_CLASSES`, by the table of what counts as failed."""
    found = class_of(outcome)
    if found.left:
        return "left"
    if found.alerts:
        return "failed"
    return "refused" if found.statistics else "answered"


def client_name(key_name: str, address: str, secret: bytes) -> str:
    """Who asked: the name of a key, else a keyed hash of the address, from which nobody gets the address back."""
    if key_name:
        return f"key:{key_name}"
    return "address:" + blake2b(address.encode("utf-8", "surrogatepass"), key=secret, digest_size=8).hexdigest()


def fingerprint(options: Mapping[str, object] | None) -> str | None:
    """Equal for equal runner options, whatever their order; None without any."""
    if not options:
        return None
    text = orjson.dumps(options, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(text, digest_size=6).hexdigest()


class RowNumbers:
    """Numbers for rows in the order in which they are given out, whatever the clock does. `last`: the largest so far.

    A clock that was put back, or more than a million rows in a millisecond, make the next numbers run ahead of it.
    """

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def next(self, ended: float) -> int:
        """The number of a row that ended then (seconds since 1970)."""
        self.last = max(first_number(ended), self.last + 1)
        return self.last


def first_number(at: float) -> int:
    """The smallest number of a row that ended then or later."""
    return min(max(0, int(at * 1000.0)), _LAST) << SEQUENCE_BITS


def ended_at(number: int) -> float:
    """When the row of that number ended, to the millisecond; seconds since 1970."""
    return (number >> SEQUENCE_BITS) / 1000.0
