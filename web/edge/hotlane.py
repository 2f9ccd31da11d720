"""The hot lane: inference requests served here, through the same exchange as the Quart routes.

What the head says is worked out once per distinct head (see `web.edge.head.Heads`) and configuration.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleet.call import ClientGone
from fleet.endpoints import ENDPOINTS, PINNABLE
from fleet.headers import field, request_id_of
from fleet.ids import RequestId, ServerId
from web import errors, keyfile
from web.doorman import Doorman, Judged, new_request_id
from web.hot import Hints, hints_of, work_of

if TYPE_CHECKING:
    from actors.system import System
    from fleet.config import Config
    from web.edge.downstream import EdgeDownstream
    from web.edge.head import RequestHead
    from web.edge.intake import Body

log = logging.getLogger(__name__)

_NONE = RequestId("")


class Prepared:
    """A head, worked out. `hints` is None when it does not belong here."""

    __slots__ = ("config", "hints", "judged", "keys", "request_id")

    def __init__(self, config: Config, hints: Hints | None, judged: Judged | None, request_id: RequestId) -> None:
        self.config = config
        self.keys = keyfile.changes()
        self.hints = hints
        self.judged = judged
        self.request_id = request_id
        """The client's own; empty if there is none."""


class HotLane:
    """Serves what the table of endpoints lists, asked for in its plainest spelling; all else is the Quart app's."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._doorman = Doorman(system)

    def prepared(self, head: RequestHead) -> Prepared | None:
        """What to do about a request of this head, or None if it is not a hot one."""
        known = head.memo
        if not isinstance(known, Prepared) or self._outdated(known):
            known = head.memo = self._prepare(head)
        return known if known.hints is not None else None

    def _outdated(self, known: Prepared) -> bool:
        return known.config is not self._system.config or known.keys != keyfile.changes()

    def _prepare(self, head: RequestHead) -> Prepared:
        config = self._system.config
        path, _, query = head.target.partition(b"?")
        hints = _hints(head, path.decode("ascii"), query) if head.method == "POST" else None
        if hints is None:
            return Prepared(config, None, None, _NONE)
        host = field(head.headers, b"host") or b""
        judged = self._doorman.judge("POST", path.decode("ascii"), host.decode("latin-1"), head.headers)
        return Prepared(config, hints, judged, request_id_of(head.headers, ""))

    async def serve(self, known: Prepared, body: Body, down: EdgeDownstream, client: str) -> None:
        """Answer one request. Raises ClientGone. Cancelled (the client has left): everything is released."""
        hints, judged = known.hints, known.judged
        assert hints is not None
        assert judged is not None
        request_id = known.request_id or new_request_id()
        down.fields = judged.decision.fields
        if judged.refused:
            mine = judged.as_of(request_id)
            down.fields = mine.decision.fields
            down.patience = self._system.config.timeouts.write
            await mine.answer(down)
            return
        try:
            data = await body.whole(self._system.config.limits.body_bytes)
            await work_of(self._system, hints, data, request_id, client)(down)
        except EOFError as gone:
            raise ClientGone from gone
        except ClientGone:
            raise
        except Exception as crash:
            mine = judged.as_of(request_id)
            down.fields = mine.decision.fields
            down.patience = self._system.config.timeouts.write
            await errors.make_good(crash, mine.asker, down)


def _hints(head: RequestHead, path: str, query: bytes) -> Hints | None:
    endpoint = ENDPOINTS.get(path)
    if endpoint is not None:
        return hints_of(endpoint, query, head.headers)
    base, mark, server = path.partition("--")
    if not mark or base not in PINNABLE or not server or "%" in server or "/" in server:
        return None
    return hints_of(ENDPOINTS[base], query, head.headers, ServerId(server))
