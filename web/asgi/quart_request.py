"""From a Quart request to a `Call`: what the fleet needs to know, and the body as it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from quart import current_app, request

from fleet.common.errors import BadRequest
from fleet.common.ids import RequestId
from fleet.protocol.body_fields import Peek, peek, peeking
from fleet.protocol.call import Call
from fleet.protocol.dialects import NATIVE
from fleet.protocol.headers import forwarded_headers
from fleet.protocol.json.go_json import LONG
from fleet.security.api_keys import without_keys
from web.http import errors
from web.http.paced_steps import paced
from web.security import api_key_auth
from web.security.request_gate import Guarded

SYSTEM_KEY: Final = "fleet.system"
"""Where the app's configuration has the running fleet."""

BY_KEY: Final = "fleet.by"
"""Where the scope says whose key was shown."""


def scope() -> Any:
    """The ASGI scope of the running request: raw headers and the raw path, before anybody decoded them."""
    return request.scope


def target() -> str:
    """Path and query as a backend shall see them. Raises BadRequest for a path that holds a key."""
    here = scope()
    secret = _is_secret()
    where: bytes = here["raw_path"]
    query = without_keys(here["query_string"], secret)
    if secret(where):
        raise BadRequest("the path holds an API key", details="send it in a header field")
    return (where + b"?" + query if query else where).decode("ascii")


def _is_secret() -> Callable[[bytes], bool]:
    system = cast("Guarded", current_app.config[SYSTEM_KEY])
    return api_key_auth.is_secret(scope()["headers"], system)


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
    seen = peek(body) if len(body) <= LONG else await paced(peeking(body))
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
        passing=forwarded_headers(here["headers"], _is_secret()),
    )
