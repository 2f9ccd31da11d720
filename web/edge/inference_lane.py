"""The hot lane: inference requests served here, through the same exchange as the Quart routes.

What the head says is worked out once per distinct head (see `web.edge.request_head.Heads`) and configuration.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleet.common.ids import RequestId, ServerId
from fleet.protocol.call import ClientGone
from fleet.protocol.endpoints import ENDPOINTS, PINNABLE
from fleet.protocol.headers import field, request_id_of
from web.http import errors
from web.http.ports import Face
from web.monitoring.http_counts import unread
from web.ollama_api.inference_call import Hints, hints_of, work_of
from web.security import api_key_auth
from web.security.rate_limits import RateLimiter, generates, lines_of, rate_of
from web.security.request_gate import GateDecision, RequestGate, new_request_id

if TYPE_CHECKING:
    from actors.system import System
    from fleet.config import Config
    from fleet.security.rate_limit import Rate
    from web.edge.request_head import RequestHead
    from web.edge.request_reader import Body
    from web.edge.response_writer import EdgeDownstream

log = logging.getLogger(__name__)

_NONE = RequestId("")


class Prepared:
    """A head, worked out. `hints`: None if it does not belong here; `rate`: None if the proxy port has none."""

    __slots__ = ("config", "hints", "judged", "keys", "rate", "request_id")

    def __init__(
        self,
        config: Config,
        keys: int,
        hints: Hints | None,
        judged: GateDecision | None,
        request_id: RequestId,
        rate: Rate | None = None,
    ) -> None:
        self.config = config
        self.rate = rate
        self.keys = keys
        self.hints = hints
        self.judged = judged
        self.request_id = request_id
        """The client's own; empty if there is none."""

    def by_cookie(self, head: RequestHead) -> bool:
        """Whether it would be refused here and may yet be admitted: the app knows who has logged in, this lane not."""
        return self.judged is not None and self.judged.refused and field(head.headers, b"cookie") is not None


class HotLane:
    """Serves what the table of endpoints lists, asked for in its plainest spelling; all else is the Quart app's."""

    def __init__(self, system: System, gate: RequestGate) -> None:
        self._system = system
        self._doorman = gate
        self._rate_limiter = RateLimiter(system, gate, Face.PROXY)

    def prepared(self, head: RequestHead) -> Prepared | None:
        """What to do about a request of this head, or None if it is not a hot one."""
        known = head.memo
        if (
            not isinstance(known, Prepared)
            or known.config is not self._system.config
            or known.keys != self._system.keys.changes
        ):
            known = head.memo = self._prepare(head)
        return known if known.hints is not None else None

    def _prepare(self, head: RequestHead) -> Prepared:
        config, keys = self._system.config, self._system.keys.changes
        path, _, query = head.target.partition(b"?")
        hints = _hints(head, path.decode("ascii"), query, self._system) if head.method == "POST" else None
        if hints is None:
            return Prepared(config, keys, None, None, _NONE)
        host = field(head.headers, b"host") or b""
        judged = self._doorman.judge("POST", path.decode("ascii"), host.decode("latin-1"), head.headers)
        limited = judged.ours and generates(hints.endpoint)
        rate = rate_of(Face.PROXY, config) if limited else None
        return Prepared(config, keys, hints, judged, request_id_of(head.headers, ""), rate)

    async def serve(self, known: Prepared, body: Body, down: EdgeDownstream, client: str, face: Face) -> None:
        """Answer one request. Raises ClientGone. Cancelled (the client has left): everything is released."""
        hints, judged = known.hints, known.judged
        assert hints is not None
        assert judged is not None
        request_id = known.request_id or new_request_id()
        down.fields = judged.decision.fields
        if known.rate is not None and face is Face.PROXY:
            verdict = self._rate_limiter.count(known.rate, judged.key, client)
            down.lines = lines_of(verdict)
            if not verdict.allowed:
                judged = judged.instead(self._rate_limiter.refusal(verdict, judged.key or client))
        if judged.refused:
            self._system.statistics.metrics.called("POST", hints.endpoint.path, judged.status, 0.0)
            await self._ready(down, request_id, judged).answer(down)
            return
        try:
            began = self._system.clock.now()
            try:
                data = await body.whole(self._system.config.limits.body_bytes)
                work = await work_of(self._system, hints, data, request_id, client, judged.key)
            except BaseException as why:
                unread(self._system.statistics.metrics, hints.endpoint.path, why, self._system.clock.now() - began)
                raise
            await work(down)
        except EOFError as gone:
            raise ClientGone from gone
        except ClientGone:
            raise
        except Exception as crash:
            await errors.make_good(crash, self._ready(down, request_id, judged).asker, down)

    def _ready(self, down: EdgeDownstream, request_id: RequestId, judged: GateDecision) -> GateDecision:
        """Make ready for an answer of our own, which no exchange watches over or signs."""
        down.fields = ((b"x-request-id", request_id.encode()), *down.fields)
        down.patience = self._system.config.timeouts.write
        return judged.as_of(request_id)


def _hints(head: RequestHead, path: str, query: bytes, system: System) -> Hints | None:
    endpoint, pinned = ENDPOINTS.get(path), None
    if endpoint is None:
        base, mark, server = path.partition("--")
        if not mark or base not in PINNABLE or not server or "%" in server or "/" in server:
            return None
        endpoint, pinned = ENDPOINTS[base], ServerId(server)
    return hints_of(endpoint, query, head.headers, pinned, api_key_auth.is_secret(head.headers, system))
