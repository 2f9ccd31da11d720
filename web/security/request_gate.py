"""Who may come in, and what every answer has to carry: judged by the request's head alone, the same in both lanes."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, replace
from typing import Protocol

from actors.kit.clock import Clock
from actors.state.request_statistics import RequestStatistics
from fleet.common.errors import BadRequest, FleetError
from fleet.common.ids import RequestId
from fleet.config import checks_hosts
from fleet.protocol.call import Downstream, Headers
from fleet.protocol.headers import request_id_of
from fleet.security.host_header import is_local, is_loopback
from fleet.security.rate_limit import Limiter
from web.http import errors
from web.http.ports import Face
from web.security import api_key_auth, cross_origin
from web.security.api_key_auth import Keyed


class Guarded(Keyed, Protocol):
    """What a doorman asks of the system."""

    @property
    def clock(self) -> Clock: ...

    @property
    def draining(self) -> bool: ...

    @property
    def statistics(self) -> RequestStatistics: ...


@dataclass(frozen=True, slots=True)
class GateDecision:
    """`refusal` or `decision.status`: answer with that and go no further. `decision.fields` go on every answer.

    `key` is the name of the valid key that was shown, or empty.
    """

    asker: errors.Asker
    decision: cross_origin.OriginDecision
    refusal: FleetError | None
    key: str = ""
    ours: bool = False
    """Whether it was meant for us and comes from nobody's foreign page: a page must not use up its reader's budget."""

    def as_of(self, request_id: RequestId) -> GateDecision:
        """The same about another request with this head; its answer carries the id."""
        decision = replace(self.decision, fields=((b"x-request-id", request_id.encode()), *self.decision.fields))
        return replace(self, asker=replace(self.asker, request_id=request_id), decision=decision)

    def instead(self, refusal: FleetError) -> GateDecision:
        """The same, but refused for this reason."""
        return replace(self, refusal=refusal)

    @property
    def refused(self) -> bool:
        return self.refusal is not None or self.decision.status is not None

    @property
    def status(self) -> int:
        """Of the answer to what was refused."""
        return self.decision.status or (self.refusal.status if self.refusal is not None else 500)

    async def answer(self, down: Downstream) -> None:
        """Tell the client that it was refused (or has its preflight)."""
        if (status := self.decision.status) is None:
            assert self.refusal is not None
            await errors.send(self.refusal, self.asker, down)
            return
        await down.start(status, [] if status == 204 else [(b"content-length", b"0")])
        await down.finish()


class RequestGate:
    """Judges by the configuration and the keys of the moment; the edge keeps a verdict while those stay the same.

    A fleet has one, which both lanes ask.
    """

    def __init__(self, system: Guarded) -> None:
        self._system = system
        self._own_name = socket.gethostname().lower()
        self._origins = cross_origin.RefusedOrigins()
        self._limiters = {face: Limiter() for face in Face}

    def limiter(self, face: Face) -> Limiter:
        """What clients have left of their rate limits on a face: both lanes take from the same."""
        return self._limiters[face]

    def judge(
        self, method: str, path: str, host: str | None, headers: Headers, face: Face = Face.PROXY
    ) -> GateDecision:
        """What to do about one request; `host` is None for a bad target. The Host comes first of all."""
        config = self._system.config
        request_id = request_id_of(headers, new_request_id())
        asker = errors.asker(path, request_id, config.compat.native_errors, headers, self._system.clock.wall, face)
        if host is None:
            bad = BadRequest("the request target is neither a path nor an http URL")
            return GateDecision(asker, cross_origin.NOTHING, bad)
        if not self._is_ours(method, path, host):
            return GateDecision(asker, cross_origin.NOTHING, errors.ForeignHost())
        decision = cross_origin.decide(method, path, host, headers, config, self._origins)
        if decision.status is not None:
            return GateDecision(asker, decision, None)
        key, refusal = api_key_auth.key_name(headers, self._system), None
        if not key and config.security.keys_required and not api_key_auth.is_open(method, path, face):
            refusal = api_key_auth.refusal(path, headers, self._system)
        return GateDecision(asker, decision, refusal, key, ours=True)

    def _is_ours(self, method: str, path: str, host: str) -> bool:
        config = self._system.config
        if not checks_hosts(config):
            return True
        names = tuple(name.lower() for name in config.security.allowed_hosts)
        if api_key_auth.is_use(method, path):
            return is_local(host, (self._own_name, *names))
        return is_loopback(host, names)


_numbers = random.Random(random.SystemRandom().getrandbits(128))
"""The process's, not a fleet's: nobody can tell from a number who has drawn others."""


def new_request_id() -> RequestId:
    """Sixteen hexadecimal digits. They tell requests apart; nothing is guarded by them, so they need not be secret."""
    return RequestId(f"{_numbers.getrandbits(64):016x}")
