"""From a Quart request to a `Call`: what the fleet needs to know, and the body as it came."""

from __future__ import annotations

from typing import Any, Final, cast

from quart import request

from fleet.call import Call
from fleet.dialects import NATIVE
from fleet.ids import RequestId
from fleet.keys import without_keys
from fleet.peek import Peek, peek
from web import errors

BY_KEY: Final = "fleet.by"
"""Where the scope says whose key was shown."""


def scope() -> Any:
    """The ASGI scope of the running request: raw headers and the raw path, before anybody decoded them."""
    return request.scope


def target(path: str | None = None) -> str:
    """Path and query as a backend shall see them; `path` replaces the client's own."""
    here = scope()
    where = path.encode() if path is not None else here["raw_path"]
    query = without_keys(here["query_string"])
    return (where + b"?" + query if query else where).decode("ascii")


def client() -> str:
    """The address of whoever asks."""
    return (scope().get("client") or ("",))[0]


def by() -> str:
    """The name of the key that whoever asks has shown; empty without one."""
    return str(scope().get(BY_KEY, ""))


async def whole_body() -> bytes:
    """Every byte of the request body. Raises RequestTimeout, BodyBudget, and Werkzeug's 413."""
    return cast(bytes, await request.get_data(cache=False))


async def managed_call() -> tuple[Peek, Call]:
    """Read the whole body of a management request (pull, create, delete ...)."""
    body = await whole_body()
    seen = peek(body)
    return seen, plain_call(body, stream=seen.stream is not False)


def plain_call(body: Any, *, stream: bool = False, content_length: int | None = None) -> Call:
    """A call that goes on as it came, to a server chosen by the caller."""
    here = scope()
    return Call(
        request_id=RequestId(errors.asker_of(here).request_id),
        dialect=NATIVE,
        method=here["method"],
        target=target(),
        headers=here["headers"],
        body=body,
        endpoint=here["path"],
        stream=stream,
        client=client(),
        by=by(),
        content_length=content_length,
    )
