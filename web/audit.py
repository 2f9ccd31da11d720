"""One log line per management call and per change by the operator: what, to whom, by whom, and how it ended.

Names, numbers and addresses only, never a body.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import trio
from quart import Response

from fleet.headers import field
from web import errors, reading
from web.connection import Relay, Work

if TYPE_CHECKING:
    from fleet.call import Downstream, Headers

MANAGEMENT: Final = logging.getLogger("fleet.management")
ADMIN: Final = logging.getLogger("fleet.admin")

_LONGEST: Final = 200
_LINE: Final = 4096

P = ParamSpec("P")
R = TypeVar("R", bound=Response)
View = Callable[Concatenate["Note", P], Awaitable[R]]


class Note:
    """What is known of one call while it runs. Made inside a request."""

    def __init__(self, log: logging.Logger, action: str) -> None:
        self._log = log
        self._action = action
        self._about: dict[str, object] = {}
        self._request_id = errors.asker_of(reading.scope()).request_id
        self._client = reading.client()
        self._began = trio.current_time()

    def about(self, **names: str) -> None:
        """Say what it is about: `model`, `server` and the like; the client's own words are cut."""
        self._about |= {key: name[:_LONGEST] for key, name in names.items()}

    def end(self, outcome: str, status: int, reason: str = "") -> None:
        """Write the line."""
        extra = {**self._about, "status": status, "reason": reason, "request_id": self._request_id}
        extra |= {"client": self._client, "total_seconds": round(trio.current_time() - self._began, 3)}
        told = {key: value for key, value in extra.items() if value != ""}
        self._log.info("%s %s", self._action, outcome, extra=told)

    def fail(self, crash: BaseException) -> None:
        """Write the line of a call that did not get to its end."""
        if not isinstance(crash, Exception):
            self.end("cancelled", 0)
            return
        known = errors.expected(crash)
        self.end("failed", known.status if known else 500, known.reason if known else type(crash).__name__)


def audited(log: logging.Logger, action: str) -> Callable[[View[P, R]], Callable[P, Awaitable[R]]]:
    """A decorator for views: they get a `Note` first, and one line is written when their response has ended."""

    def around(view: View[P, R]) -> Callable[P, Awaitable[R]]:
        @wraps(view)
        async def noted(*args: P.args, **kwargs: P.kwargs) -> R:
            note = Note(log, action)
            try:
                response = await view(note, *args, **kwargs)
            except BaseException as crash:
                note.fail(crash)
                raise
            if isinstance(response, Relay):
                response.work = partial(_relayed, note, response.work)
            else:
                note.end("done" if response.status_code < 400 else "failed", response.status_code)
            return response

        return noted

    return around


async def _relayed(note: Note, work: Work, down: Downstream) -> None:
    seen = _Seen(down)
    try:
        await work(seen)
    except BaseException as crash:
        if seen.whole:  # a client that has read everything may leave before we close
            note.end(seen.outcome, seen.status)
        else:
            note.fail(crash)
        raise
    note.end(seen.outcome, seen.status)


class _Seen:
    """A Downstream that remembers how the answer ended."""

    def __init__(self, down: Downstream) -> None:
        self._down = down
        self._last = b""
        self._left = -1
        self._finished = False
        self.status = 0

    @property
    def whole(self) -> bool:
        """Whether everything that the client needs has been said."""
        return self._finished or self._left == 0 or self._last.rstrip().endswith(b'"success"}')

    @property
    def outcome(self) -> str:
        """Errors of a pull or create come inside a stream that is a 200."""
        last_line = self._last.rstrip().rpartition(b"\n")[2]
        if not self.whole:
            return "cut"
        return "failed" if self.status >= 400 or last_line.startswith(b'{"error"') else "done"

    @property
    def started(self) -> bool:
        return self._down.started

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        length = field(headers, b"content-length") or b""
        self._left = int(length) if length.isdigit() else -1
        await self._down.start(status, headers)

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        self._seen(data)
        await self._down.write(data, raw)

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        self._seen(last)
        self._finished = True
        await self._down.finish(last, raw, patience)

    def cut(self) -> None:
        self._finished = False
        self._down.cut()

    def _seen(self, data: bytes) -> None:
        if data:
            self._last = data[-_LINE:]
            self._left -= len(data)
