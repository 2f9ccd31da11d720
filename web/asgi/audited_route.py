"""One log line per management call and per change by the operator: what, to whom, by whom, and how it ended.

The same goes to the audit log, which outlives the process, with what was changed. Names, numbers and addresses only,
never a body and never a secret.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import orjson
import trio
from quart import Response, current_app

from actors.system import System
from fleet.protocol.call import Downstream, Headers
from fleet.protocol.headers import field
from fleet.security.redaction import redacted
from web.asgi import quart_request
from web.asgi.quart_connection import Relay, Work
from web.http import errors
from web.security import api_key_auth

MANAGEMENT: Final = logging.getLogger("fleet.management")
ADMIN: Final = logging.getLogger("fleet.admin")

KEPT_WITHIN: Final = 2.0
"""Seconds that an answer waits until the change it tells of is on disk."""
NOT_KEPT: Final = ("X-Fleet-Kept", "no")
"""On the answer to a change that has happened, but could not be written down in that time."""
_NAME_LENGTH: Final = 200
_LINE: Final = 4096

P = ParamSpec("P")
R = TypeVar("R", bound=Response)
View = Callable[Concatenate["Note", P], Awaitable[R]]


class Note:
    """What is known of one call while it runs. Made inside a request."""

    def __init__(self, log: logging.Logger, action: str) -> None:
        self._log = log
        self._action = action
        self._about: dict[str, str] = {}
        self._change: dict[str, Any] = {}
        self._system = cast("System", current_app.config[quart_request.SYSTEM_KEY])
        here = quart_request.scope()
        self._clean = api_key_auth.cleaner(here["headers"], self._system)
        self._harmless = here["method"] == "HEAD"
        self._request_id = errors.asker_of(here).request_id
        self._by = api_key_auth.visitor(here, self._system)
        self._client = quart_request.client()
        self._began = trio.current_time()

    def about(self, **names: str) -> None:
        """Say what it is about: `model`, `server` and the like; the client's own words are cut."""
        self._about |= {key: str(self._safe(name))[:_NAME_LENGTH] for key, name in names.items()}

    def change(self, *, before: object = None, after: object = None) -> None:
        """Say what was changed, from what to what: plain values or models, small ones. Secrets in them are replaced."""
        self._change = {"before": self._safe(before), "after": self._safe(after)}

    def end(self, outcome: str, status: int, reason: str = "") -> None:
        """Write the line."""
        extra: dict[str, object] = {**self._about, "status": status, "reason": reason, "request_id": self._request_id}
        extra |= {"client": self._client, "by": self._by.name}
        extra |= {"total_seconds": round(trio.current_time() - self._began, 3)}
        told = {key: value for key, value in extra.items() if value != ""}
        self._log.info("%s %s", self._action, outcome, extra=told)
        if not self._harmless:
            self._system.journal.audit(self._line(outcome, status, reason))

    async def kept(self) -> bool:
        """Wait until the change and its line are on disk, for `KEPT_WITHIN` seconds at most; whether they are."""
        return await self._system.journal.kept(KEPT_WITHIN)

    def fail(self, crash: BaseException) -> None:
        """Write the line of a call that did not get to its end."""
        if not isinstance(crash, Exception):
            self.end("cancelled", 0)
            return
        known = errors.expected(crash)
        self.end("failed", known.status if known else 500, known.reason if known else type(crash).__name__)

    def _line(self, outcome: str, status: int, reason: str) -> dict[str, Any]:
        return {
            "at": self._system.clock.wall(),
            "who": self._by.name,
            "role": self._by.role.word,
            "from": self._client,
            "action": self._action,
            "targets": dict(self._about),
            "outcome": outcome,
            "status": status,
            "reason": reason,
            "requestId": self._request_id,
            **self._change,
        }

    def _safe(self, value: object) -> Any:
        """Without what looks like a secret, and without any key that is known, whatever stands around it."""
        return redacted(value, self._clean)


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
                if not await note.kept():
                    response.headers[NOT_KEPT[0]] = NOT_KEPT[1]
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
        self._tail = b""
        self._left = -1
        self._finished = False
        self.status = 0

    @property
    def whole(self) -> bool:
        """Whether everything that the client needs has been said."""
        return self._finished or self._left == 0 or self._record.get("status") == "success"

    @property
    def outcome(self) -> str:
        """Errors of a pull or create come inside a stream that is a 200."""
        if not self.whole:
            return "cut"
        return "failed" if self.status >= 400 or "error" in self._record else "done"

    @property
    def _record(self) -> Mapping[str, Any]:
        """The last record of a stream, however it is spaced and in however many pieces it came; else nothing."""
        try:
            found = orjson.loads(self._tail.rstrip().rpartition(b"\n")[2])
        except orjson.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

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
            self._tail = data[-_LINE:] if len(data) >= _LINE else (self._tail + data)[-_LINE:]
            self._left -= len(data)
