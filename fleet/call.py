"""What web/ hands to the exchange, and what the exchange hands back. Both lanes of the front end speak only this."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fleet.ids import ANY_MODEL, ModelName, RequestId, ServerId

if TYPE_CHECKING:
    from fleet.dialects.base import Dialect

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""


@dataclass(frozen=True, slots=True)
class Call:
    """One client request, read and understood, ready to be queued. Its body is forwarded byte for byte.

    `target` is path and query as the backend shall see them (without the backend's base path). `model` is canonical,
    or `ANY_MODEL` when any server may answer; `asked_model` is the client's own spelling. `stream` says whether the
    answer comes in pieces. `sse` asks for native NDJSON to be re-framed as server-sent events.
    `runs` is False for what no model runner answers (/api/show): it needs no slot and proves nothing about the model.
    `pinned` names the only server allowed. `content_length` belongs to an iterable body (None: chunked).
    """

    request_id: RequestId
    dialect: Dialect
    method: str
    target: str
    headers: Headers
    body: bytes | AsyncIterable[bytes]
    endpoint: str
    model: ModelName = ANY_MODEL
    asked_model: str = ""
    stream: bool = False
    sse: bool = False
    embedding: bool = False
    priority: int = 0
    pinned: ServerId | None = None
    client: str = ""
    content_length: int | None = None
    runs: bool = True

    @property
    def replayable(self) -> bool:
        """Whether a second attempt can send the body again."""
        return isinstance(self.body, bytes)


class Downstream(Protocol):
    """Where the answer goes. Two small implementations: one for ASGI, one for the edge.

    The exchange calls `start` once, `write` any number of times, then `finish` or `abort`. A client that is gone shows
    as cancellation of the exchange, or as `ClientGone` out of any of them.
    """

    async def start(self, status: int, headers: Headers) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def finish(self) -> None: ...

    async def abort(self) -> None:
        """End abnormally: the client must notice that the answer is cut (no terminator, connection closed)."""


class ClientGone(Exception):
    """The client closed its connection; nobody is to blame."""
