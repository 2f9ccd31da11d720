"""W3C trace context: what a client said of its trace, and what a backend is told. No clock, no dice, no SDK.

A field that breaks the rules is as good as none: the request then begins a trace of its own, as the standard wants.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from fleet.protocol.call import Headers

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
SAMPLED: Final = 0x01
_KNOWN_FLAGS: Final = 0x03
"""Sampled, and "the trace id is random", which whoever keeps the id passes on."""
_LONGEST_PARENT: Final = 256
_LONGEST_STATE: Final = 512
"""Characters that everybody must be able to pass on; we pass on no more."""
_BIG_MEMBER: Final = 128
_MOST_MEMBERS: Final = 32
_MOST_FIELDS: Final = 8

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_LINES = re.compile(rb"^trace(?:parent|state): [^\r\n]*\r\n", re.MULTILINE)


class Parent(NamedTuple):
    """The client's span. `state`: what `tracestate` said, checked and bounded; empty if it said nothing."""

    trace_id: int
    span_id: int
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the client records its part of the trace."""
        return bool(self.flags & SAMPLED)


def parent_of(headers: Headers) -> Parent | None:
    """The span that the client says it is in; None if it says nothing, or nothing that makes sense."""
    given = [value for name, value in headers if name.lower() == TRACEPARENT]
    read = read_parent(given[0].strip()) if len(given) == 1 else None
    if read is None:
        return None
    states = [value for name, value in headers if name.lower() == TRACESTATE]
    return read._replace(state=read_state(states)) if states else read


def read_parent(value: bytes) -> Parent | None:
    """A `traceparent`. Later versions than 00 may have more behind it; version ff and ids of zero are nothing."""
    found = _PARENT.fullmatch(value) if len(value) <= _LONGEST_PARENT else None
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return Parent(trace_id, span_id, int(found[4], 16) & _KNOWN_FLAGS) if trace_id and span_id else None


def write_parent(trace_id: int, span_id: int, flags: int) -> bytes:
    """A `traceparent` of version 00."""
    return b"00-%032x-%016x-%02x" % (trace_id, span_id, flags)


def read_state(values: list[bytes]) -> str:
    """The members of all `tracestate` fields, in order; empty if one of them is not as it should be.

    Too long a list loses its big members first, then those at its end, which are the oldest.
    """
    if len(values) > _MOST_FIELDS or sum(map(len, values)) > 16 * _LONGEST_STATE:
        return ""
    members = [member.strip(" \t") for member in b",".join(values).decode("latin-1").split(",")]
    members = [member for member in members if member]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {each[1] for each in found if each is not None}
    if len(keys) != len(members) or len(members) > _MOST_MEMBERS:
        return ""
    return _fitting(members)


def _fitting(members: list[str]) -> str:
    if len(",".join(members)) > _LONGEST_STATE:
        members = [member for member in members if len(member) <= _BIG_MEMBER]
    while len(",".join(members)) > _LONGEST_STATE:
        members.pop()
    return ",".join(members)


def without_context(lines: bytes) -> bytes:
    """Complete header lines (names in lower case) without the client's own trace context."""
    return _LINES.sub(b"", lines) if b"trace" in lines else lines


def chosen(trace_id: int, ratio: float) -> bool:
    """Whether a trace that begins here is among those recorded: by its id, so that all who ask agree."""
    return trace_id & 0xFFFF_FFFF_FFFF_FFFF < round(ratio * 2**64)


class Trace:
    """One request's place in a trace. `root` is the id of its own span, `attempts` those of what it asked of backends.

    The ids exist before the spans: a backend is told its parent's id when it is asked, and spans are made when all is
    over. `method`, `dialect` and `asked_model` are what a `Record` does not say.
    """

    __slots__ = ("_new_id", "asked_model", "attempts", "dialect", "flags", "method", "parent", "root", "trace_id")

    def __init__(
        self,
        parent: Parent | None,
        trace_id: int,
        flags: int,
        new_id: Callable[[], int],
        *,
        method: str = "POST",
        dialect: str = "",
        asked_model: str = "",
    ) -> None:
        self.parent = parent
        self.trace_id = trace_id
        self.flags = flags
        self.root = new_id()
        self.attempts: list[int] = []
        self.method = method
        self.dialect = dialect
        self.asked_model = asked_model
        self._new_id = new_id

    @property
    def sampled(self) -> bool:
        """Whether its spans are to be kept."""
        return bool(self.flags & SAMPLED)

    @property
    def name(self) -> str:
        """The trace id as everybody writes it."""
        return f"{self.trace_id:032x}"

    def new_id(self) -> int:
        """The id of one more span."""
        return self._new_id()

    def attempt(self) -> list[tuple[bytes, bytes]]:
        """A backend is asked: the header fields that tell it so."""
        span_id = self._new_id()
        self.attempts.append(span_id)
        fields = [(TRACEPARENT, write_parent(self.trace_id, span_id, self.flags))]
        if self.parent is not None and self.parent.state:
            fields.append((TRACESTATE, self.parent.state.encode("ascii")))
        return fields
