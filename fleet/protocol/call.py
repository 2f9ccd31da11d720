"""What web/ hands to the exchange, and what the exchange hands back. Both lanes of the front end speak only this."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fleet.common.ids import ANY_MODEL, ModelName, RequestId, ServerId

if TYPE_CHECKING:
    from fleet.protocol.dialects.base import Dialect
    from fleet.protocol.headers import ForwardedHeaders

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""


@dataclass(slots=True, eq=False)
class Call:
    """One client request, read and understood, ready to be queued. Its body is forwarded byte for byte.

    Nobody changes one after it was made (not frozen, because that would triple the cost of making one).

    `target` is path and query as the backend shall see them (without the backend's base path). `model` is canonical,
    or `ANY_MODEL` when any server may answer; `asked_model` is the client's own spelling. `stream` says whether the
    answer comes in pieces. `sse` asks for native NDJSON to be re-framed as server-sent events.
    `runs` is False for what no model runner answers (/api/show): it needs no slot and proves nothing about the model.
    `client` is an address; `by` the name of the key that was shown (never the key), empty without one.
    `pinned` names the only server allowed. `content_length` belongs to an iterable body (None: chunked).
    `passing`: what of the headers goes on to a backend, if that has been worked out. `runner`: the runner options that
    the body asks for, None if there are none. `unloads`: the runner goes as soon as nobody uses it (`keep_alive: 0`).
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
    by: str = ""
    content_length: int | None = None
    runs: bool = True
    passing: ForwardedHeaders | None = None
    runner: Mapping[str, object] | None = None
    unloads: bool = False

    @property
    def replayable(self) -> bool:
        """Whether a second attempt can send the body again."""
        return isinstance(self.body, bytes)


class Downstream(Protocol):
    """Where the answer goes. Two small implementations: `web.asgi.response_writer` and `web.edge.response_writer`.

    The exchange calls `start` once, `write` any number of times, then `finish` or `cut`. A client that is gone shows
    as cancellation of the exchange, or as `ClientGone` out of any of them.

    `raw`, where it is given, is the same piece in whole HTTP/1.1 chunks, as the server sent it (the last chunk
    included at the end): whoever chunks anyway may pass that on instead.
    """

    @property
    def started(self) -> bool:
        """Whether `start` was called: nothing else can be answered any more."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """The head; it may wait for the first piece and leave together with it."""

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        """One piece of the body; returns when the client's side has taken it."""

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        """The last piece and the end; a client that does not take them within `patience` seconds is cut off."""

    def cut(self) -> None:
        """End abnormally: the client must notice that the answer is cut (no terminator, connection closed).

        From any task: whoever waits in `write` or `finish` wakes up with ClientGone.
        """


class ClientGone(Exception):
    """The client closed its connection; nobody is to blame."""
