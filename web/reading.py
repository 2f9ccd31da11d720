"""From a Quart request to a `Call`: what the fleet needs to know, and the body as it came."""

from __future__ import annotations

import re
from typing import Any, cast

from quart import request

from fleet.call import Call
from fleet.dialects import NATIVE
from fleet.endpoints import Endpoint, Kind, Understood, understand
from fleet.headers import priority_of
from fleet.ids import RequestId, ServerId
from fleet.peek import Peek, peek
from web import errors

# A quality of nothing: "anything but this".
_ZERO = re.compile(rb"\s*q\s*=\s*0(\.0*)?\s*")


def scope() -> Any:
    """The ASGI scope of the running request: raw headers and the raw path, before anybody decoded them."""
    return request.scope


def target(path: str | None = None) -> str:
    """Path and query as a backend shall see them; `path` replaces the client's own."""
    here = scope()
    where = path.encode() if path is not None else here["raw_path"]
    query = here["query_string"]
    return (where + b"?" + query if query else where).decode("ascii")


def client() -> str:
    """The address of whoever asks."""
    return (scope().get("client") or ("",))[0]


async def whole_body() -> bytes:
    """Every byte of the request body. Raises RequestTimeout, BodyBudget, and Werkzeug's 413."""
    return cast(bytes, await request.get_data(cache=False))


async def hot_call(endpoint: Endpoint, decoded_limit: int, pinned: ServerId | None = None) -> tuple[Understood, Call]:
    """Read the whole body of an inference request and understand it, decompressed up to `decoded_limit` bytes.

    Raises what `whole_body` does, and TooLarge for a compressed body.
    """
    here, body = scope(), await whole_body()
    headers = here["headers"]
    seen = understand(endpoint, body, headers, decoded_limit)
    return seen, Call(
        request_id=RequestId(errors.asker_of(here).request_id),
        dialect=endpoint.dialect,
        method="POST",
        target=target(endpoint.path),
        headers=headers,
        body=body,
        endpoint=endpoint.path,
        model=seen.model,
        asked_model=seen.asked_model,
        stream=seen.stream,
        sse=seen.stream and endpoint.dialect is NATIVE and _wants_events(headers),
        embedding=seen.embedding,
        priority=priority_of(headers),
        pinned=pinned,
        client=client(),
        runs=endpoint.kind is not Kind.SHOW,
    )


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
        content_length=content_length,
    )


def _wants_events(headers: Any) -> bool:
    """Native streams are NDJSON unless the client asks for server-sent events, and not for NDJSON too."""
    accepted = b",".join(value for name, value in headers if name == b"accept").lower()
    wanted = {kind.strip() for kind, *parameters in _parted(accepted) if not any(map(_ZERO.fullmatch, parameters))}
    return b"text/event-stream" in wanted and b"application/x-ndjson" not in wanted


def _parted(accepted: bytes) -> list[list[bytes]]:
    return [each.split(b";") for each in accepted.split(b",")]
