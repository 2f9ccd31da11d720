"""Words for labels. Backends choose some of them (a status may be any number), so they are held to a fixed set."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Final

from fleet.breakers.failure_classes import LEFT

CLIENT_LEFT: Final = 499
"""The status of a request whose client left before its end; the word of many proxies for it."""
_REFUSED: Final = "refused_"
_KNOWN: Final = frozenset({CLIENT_LEFT, *(status.value for status in HTTPStatus)})
_LONGEST: Final = 40


@cache
def _status(status: int) -> str:
    return str(status) if status in _KNOWN else f"{status // 100}xx"


def status_word(status: int, outcome: str = "") -> str:
    """The `status` label: a registered HTTP status, else its class (`5xx`).

    499 for a client that left, 500 for a request that ended without any answer.
    """
    if outcome in LEFT:
        return "499"
    return _status(status) if 100 <= status <= 999 else "500"


def outcome_word(outcome: str) -> str:
    """The `outcome` label: one of `breakers.outcomes.kind`'s words, with the status of a refusal bounded as above."""
    if not outcome.startswith(_REFUSED):
        return outcome[:_LONGEST]
    number = outcome.removeprefix(_REFUSED)
    return f"{_REFUSED}{status_word(int(number))}" if number.isdecimal() and len(number) <= 3 else f"{_REFUSED}5xx"
