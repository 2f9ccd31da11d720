"""How errors look to who asked, in every dialect."""

from __future__ import annotations

import json

import trio

from tests.e2e.support import Answer, Route, connect, read_to_the_end
from tests.kit.fleets.served import Served


def one_line(text: object) -> bool:
    """Whether Ollama's own clients survive this as an error text."""
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        return False
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


async def send(fleet: Served, route: Route, *headers: str, stream: bool = False) -> Answer:
    """One of the standard requests with more header fields."""
    head, _, rest = route.request(stream=stream).partition(b"\r\n")
    more = "".join(f"{header}\r\n" for header in ("Connection: close", *headers)).encode()
    with trio.fail_after(60):
        async with await connect(fleet.url) as wire:
            await wire.send_all(head + b"\r\n" + more + rest)
            raw = await read_to_the_end(wire)
    head, _, body = raw.partition(b"\r\n\r\n")
    pairs = (line.partition(":") for line in head.decode().split("\r\n")[1:])
    return Answer(int(raw.split()[1]), {key.lower(): value.strip() for key, _, value in pairs}, body, raw)
