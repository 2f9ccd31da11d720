"""Engine.IO, version 4: its packets, its payloads, its refusals. No IO, no clock.

A packet is a text that begins with one digit, or bytes. Long polling puts several into one body, with 0x1E between them
and bytes as `b` and base64. Only what a server needs is here: it writes text and reads both.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import orjson

VERSION: Final = "4"
POLLING: Final[Literal["polling"]] = "polling"
WEBSOCKET: Final[Literal["websocket"]] = "websocket"

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
_KINDS: Final = frozenset((OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP))
LAST_WORDS: Final = 1.0
"""Seconds that the end of a session may take."""
PROBE: Final = "2probe"
"""What a client says first on the websocket that it would rather use."""
PROBED: Final = "3probe"
"""And what it is answered."""

MOST_PACKETS: Final = 64
"""Packets in one body of a client's."""
_BETWEEN: Final = b"\x1e"


class BadPacket(Exception):
    """What the client says is not the protocol; its session ends. The message quotes nothing of it."""


class EngineRefusal(Exception):
    """A request that is not answered by its session. `code` and `words` are the protocol's own."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words

    @property
    def body(self) -> bytes:
        """What the client gets, with a 400."""
        return orjson.dumps({"code": self.code, "message": self.words})


def unknown_transport() -> EngineRefusal:
    """It is neither polling nor a websocket."""
    return EngineRefusal(0, "Transport unknown")


def unknown_session() -> EngineRefusal:
    """There is no such session, or it has ended."""
    return EngineRefusal(1, "Session ID unknown")


def bad_method() -> EngineRefusal:
    """A session begins with a GET."""
    return EngineRefusal(2, "Bad handshake method")


def bad_request(why: str = "Bad request") -> EngineRefusal:
    """Anything else that a client should not have asked."""
    return EngineRefusal(3, why)


def bad_version() -> EngineRefusal:
    """A client of another version of the protocol."""
    return EngineRefusal(5, "Unsupported protocol version")


class EnginePacket(NamedTuple):
    """`kind` is its digit; bytes are always a message."""

    kind: str
    data: str | bytes = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `ping` and `pong` are told to clients: how often they are asked, and how long they have to answer.

    `connect` is what a session has to become a client; `upgrade`, what a websocket has to take over; `drain`, how long
    a client may take nothing; `look`, how often somebody looks at sessions that ask for nothing.
    """

    ping: float = 25.0
    pong: float = 20.0
    connect: float = 10.0
    upgrade: float = 10.0
    drain: float = 30.0
    look: float = 1.0


def opening(sid: str, upgrades: Sequence[str], timing: Timing, most_bytes: int) -> bytes:
    """The first packet of a session. Its times are milliseconds."""
    record = {
        "sid": sid,
        "upgrades": list(upgrades),
        "pingInterval": round(timing.ping * 1000),
        "pingTimeout": round(timing.pong * 1000),
        "maxPayload": most_bytes,
    }
    return OPEN.encode() + orjson.dumps(record)


def decoded(frame: str | bytes) -> EnginePacket:
    """The packet in one message of a websocket. Raises BadPacket."""
    if isinstance(frame, bytes):
        return EnginePacket(MESSAGE, frame)
    if frame[:1] not in _KINDS:
        raise BadPacket("a packet begins with a digit from 0 to 6")
    return EnginePacket(frame[0], frame[1:])


def unpacked(body: bytes) -> list[EnginePacket]:
    """The packets in one body of a POST. Raises BadPacket."""
    parts = body.split(_BETWEEN, MOST_PACKETS)
    if len(parts) > MOST_PACKETS:
        raise BadPacket(f"more than {MOST_PACKETS} packets at once")
    return [_unpacked(part) for part in parts]


def packed(packets: Sequence[bytes]) -> bytes:
    """The body of an answer to a poll."""
    return _BETWEEN.join(packets)


def _unpacked(part: bytes) -> EnginePacket:
    try:
        if part.startswith(b"b"):
            return EnginePacket(MESSAGE, base64.b64decode(part[1:], validate=True))
        return decoded(part.decode())
    except (UnicodeDecodeError, binascii.Error):
        raise BadPacket("neither text nor base64") from None
