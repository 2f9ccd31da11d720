"""HTTP spoken by hand, for tests that look at the bytes."""

from __future__ import annotations

import json
from typing import Any

import trio


def request_bytes(method: str, path: str, body: object = None, *headers: str, version: str = "1.1") -> bytes:
    """A request with a Content-Length if there is a body (bytes as they are, anything else as JSON)."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers]
    if data:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end. Raises what the stream raises."""
    parts = []
    while part := await stream.receive_some(65536):
        parts.append(bytes(part))
    return b"".join(parts)


async def read_until(stream: trio.abc.ReceiveStream, mark: bytes) -> bytes:
    """Everything up to (and possibly beyond) the first `mark`. Raises `EOFError` if it ends before."""
    data = b""
    while mark not in data:
        part = await stream.receive_some(65536)
        if not part:
            raise EOFError(data)
        data += part
    return data


async def ask_once(stream: trio.abc.Stream, method: str, path: str, body: object = None, *headers: str) -> bytes:
    """The whole answer to one request on a connection that is then closed."""
    async with stream:
        await stream.send_all(request_bytes(method, path, body, "Connection: close", *headers))
        return await read_all(stream)


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of an answer that was closed at its end; chunks are put together."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in rest)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(chunks(body))
    return int(first.split()[1]), headers, body


def chunks(body: bytes) -> list[bytes]:
    """The chunks of a chunked body, without the terminator."""
    found = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        found.append(body[:length])
        body = body[length + 2 :]
    return found


def json_of(answer: bytes) -> tuple[int, Any]:
    """Status and decoded JSON body."""
    status, _, body = parse(answer)
    return status, json.loads(body)
