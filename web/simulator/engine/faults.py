"""Faults a simulated server can be told to show.

A flag is `[all:]KIND[:ARG[:TEXT]][,paths=/a|/b][,times=N][@P]`. By default a fault hits inference routes only; `all:`
makes it hit every route (except `/sim/...`), `paths=` exactly those paths. `times=N` wears it out after N requests,
`@P` lets it happen with probability P (seeded).

    refuse[:SECONDS]      connections are refused (and kept ones reset), always on all routes; SECONDS ends it by itself
    reset-before-headers  the request is read, then the connection is reset
    reset-after-headers   status and headers, then a reset
    reset-mid-stream:N    N chunks, then a reset (an unstreamed answer: half of it)
    hang-before-headers   no answer until the client leaves
    stall-mid-stream:N    N chunks, then silence until the client leaves
    status:CODE[:TEXT]    that status with an error body of the route's dialect
    runner-crash          the runner dies after the prefill, with all its jobs: a 500
    runner-crash-mid:N    the runner dies after N tokens: an error line (native), an unfinished stream (/v1)
    garbage               bytes that are not HTTP
    no-done               a clean end without the last chunk
    slow-drip:SECONDS     a pause before every chunk
    wrong-length          a Content-Length larger than the body, then the connection closes
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from fleet.common.randomness import Chance

_ARGUMENT: Final = {
    "refuse": "optional",
    "reset-before-headers": "none",
    "reset-after-headers": "none",
    "reset-mid-stream": "required",
    "hang-before-headers": "none",
    "stall-mid-stream": "required",
    "status": "required",
    "runner-crash": "none",
    "runner-crash-mid": "required",
    "garbage": "none",
    "no-done": "none",
    "slow-drip": "required",
    "wrong-length": "none",
}
KINDS: Final = tuple(_ARGUMENT)


class BadFault(ValueError):
    """The flag cannot be read; the message says why."""


@dataclass(slots=True)
class Fault:
    """One flag, read."""

    flag: str
    kind: str
    number: float = 0.0
    text: str = ""
    everywhere: bool = False
    paths: tuple[str, ...] = ()
    times: float = math.inf
    probability: float = 1.0
    until: float = math.inf

    @property
    def count(self) -> int:
        return int(self.number)

    def covers(self, path: str, *, inference: bool) -> bool:
        if path.startswith("/sim/"):
            return False
        return path in self.paths if self.paths else self.everywhere or inference


def parse_fault(flag: str) -> Fault:
    """Read a flag (grammar above). Raises `BadFault`."""
    rest, probability = flag.strip(), 1.0
    if (suffix := re.search(r"@(\d*\.?\d+)$", rest)) is not None:
        rest, probability = rest[: suffix.start()], float(suffix[1])
    rest, _, qualifiers = rest.partition(",")
    everywhere, rest = rest.startswith("all:"), rest.removeprefix("all:")
    kind, _, argument = rest.partition(":")
    number, _, text = argument.partition(":")
    fault = Fault(flag, kind, _number(flag, kind, number), text, everywhere, probability=probability)
    for qualifier in filter(None, qualifiers.split(",")):
        _qualify(fault, qualifier)
    return fault


def _number(flag: str, kind: str, text: str) -> float:
    need = _ARGUMENT.get(kind)
    if need is None:
        raise BadFault(f"unknown fault {kind!r} in {flag!r}; known: {', '.join(KINDS)}")
    if not text and need != "required":
        return 0.0
    try:
        if need == "none":
            raise ValueError(text)
        return float(text)
    except ValueError:
        raise BadFault(
            f"fault {flag!r}: {kind} {'takes no argument' if need == 'none' else 'needs a number'}"
        ) from None


def _qualify(fault: Fault, qualifier: str) -> None:
    key, _, value = qualifier.partition("=")
    if key == "paths" and value:
        fault.paths = tuple(value.split("|"))
    elif key == "times" and value.isdigit():
        fault.times = int(value)
    else:
        raise BadFault(f"fault {fault.flag!r}: cannot read {qualifier!r}; known: paths=/a|/b, times=N")


Plan = dict[str, Fault]
"""The faults drawn for one request, by kind."""


class FaultBook:
    """The faults in force. May be changed at any time; a request keeps what was drawn when it came."""

    def __init__(self, chance: Chance, clock: Callable[[], float]) -> None:
        self._chance = chance
        self._clock = clock
        self._faults: list[Fault] = []
        self.changed = trio.Event()
        """Set, and replaced by a fresh one, whenever the book changes."""

    @property
    def flags(self) -> list[str]:
        return [fault.flag for fault in self._current()]

    def set(self, *flags: str) -> None:
        """Put these in force instead of whatever was. Raises `BadFault`, changing nothing."""
        self._faults = [parse_fault(flag) for flag in flags]
        self.changed.set()
        self.changed = trio.Event()

    def clear(self) -> None:
        """No faults any more."""
        self.set()

    def draw(self, path: str, *, inference: bool) -> Plan:
        """What happens to a request that came now; wears out `times`."""
        plan: Plan = {}
        for fault in self._current():
            if fault.kind != "refuse" and fault.covers(path, inference=inference) and self._happens(fault):
                plan.setdefault(fault.kind, fault)
        return plan

    def draw_refusal(self) -> bool:
        """Whether a connection that came now is refused."""
        return any(fault.kind == "refuse" and self._happens(fault) for fault in self._current())

    @property
    def refusing(self) -> bool:
        """Whether every connection is refused: a listener closes its socket then."""
        return any(f.kind == "refuse" and f.probability >= 1 and math.isinf(f.times) for f in self._current())

    @property
    def refusing_until(self) -> float:
        """When refusing ends by itself; infinite if it does not."""
        return max((fault.until for fault in self._current() if fault.kind == "refuse"), default=math.inf)

    def _current(self) -> list[Fault]:
        now = self._clock()
        for fault in self._faults:
            # Only now: the flag may have been set before there was a clock.
            if fault.kind == "refuse" and fault.number and math.isinf(fault.until) and not math.isinf(now):
                fault.until = now + fault.number
        self._faults = [fault for fault in self._faults if fault.until > now and fault.times > 0]
        return self._faults

    def _happens(self, fault: Fault) -> bool:
        if fault.probability < 1 and self._chance.random() >= fault.probability:
            return False
        fault.times -= 1
        return True
