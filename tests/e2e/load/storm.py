"""Clients by the hundred: streams that are read to their end or left, and what became of each."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import trio

from tests.e2e.support import CHAT, connect, is_whole, understood
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served


def chat_request(number: int, tokens: int = 5, *headers: str, stream: bool = True) -> bytes:
    """A chat of its own, so that no prefix cache helps."""
    message = [{"role": "user", "content": f"{number} and some more words to think about"}]
    body = {"model": CHAT, "messages": message, "stream": stream, "options": {"num_predict": tokens}}
    return request_bytes("POST", "/api/chat", body, f"X-Request-Id: n{number}", *headers)


@dataclass
class Tally:
    """How requests ended: `done`, `error_record`, `refused_<status>`, `left`, `cut`."""

    ends: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.ends.values())


async def one_stream(
    fleet: Served, number: int, tally: Tally, *, tokens: int = 5, leave_after: int | None = None
) -> None:
    """One request on a connection of its own; `leave_after`: gone once that many bytes have come."""
    stream = await connect(fleet.url)
    try:
        await stream.send_all(chat_request(number, tokens))
        tally.ends[await _read(stream, leave_after)] += 1
    except (trio.BrokenResourceError, OSError):
        tally.ends["cut"] += 1
    finally:
        stream.socket.close()


async def _read(stream: trio.SocketStream, leave_after: int | None) -> str:
    raw = b""
    while not is_whole(raw):
        if leave_after is not None and len(raw) >= leave_after:
            return "left"
        part = await stream.receive_some(65536)
        if not part:
            return "cut"
        raw += part
    answer = understood(raw)
    if answer.status != 200:
        return f"refused_{answer.status}"
    return "done" if answer.lines[-1].get("done") else "error_record"


async def trouble(fleet: Served, dice: random.Random) -> None:
    """Faults come and go on all servers but the first, until cancelled."""
    kinds = ("reset-mid-stream:2@0.3", "stall-mid-stream:2@0.1", "status:503@0.3", "reset-before-headers@0.2", "kill")
    victims = list(fleet.sims.values())[1:]
    while True:
        sim, kind = dice.choice(victims), dice.choice(kinds)
        if kind == "kill":
            await sim.kill()
            await trio.sleep(0.2)
            await sim.restart()
        else:
            sim.host.faults.set(kind)
            await trio.sleep(0.3)
            sim.host.faults.clear()
