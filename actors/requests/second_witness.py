"""The refusals of one request, kept until it is known whose fault they were: the request's or some server's.

A refusal frees its slot at once; what the breaker learns of it waits for the witness, the next server that is tried.
That one answers: the first has failed. That one says the same: it was the request's fault, and nobody is blamed. No
witness is to be had: each refusal counts for what it proves by itself. One outcome per attempt, in any case.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NoReturn

from actors.requests.held_responses import HeldResponse
from actors.state.messages import BanPair, Unwelcome
from fleet.breakers.failure_classes import classify, convict
from fleet.breakers.outcomes import End, Signal, StreamError, is_death
from fleet.breakers.poison import Standing
from fleet.common.errors import BackendRefused, PoisonousRequest, RouteMissing
from fleet.common.ids import ANY_MODEL
from fleet.protocol.refusals import Ground
from fleet.scheduling.server_state import Admin

if TYPE_CHECKING:
    from actors.requests.request_context import RequestContext
    from actors.state.lease import Lease
    from fleet.protocol.call import Call

log = logging.getLogger("fleet.exchange")

PATIENCE: Final = 15.0
"""Seconds that a request waits in line for a second opinion on a refusal that may well be its own fault."""
_NO_ROOM: Final = 600.0
"""Seconds for which a pair is passed over whose model did not fit while it did elsewhere."""
_FULL: Final = 1.0
"""Seconds for which a server that says it has enough to do is passed over."""
_KEPT: Final = frozenset({400, 404, 405, 408, 411, 413, 414, 415, 422, 429, 431, 503, 504})
"""Statuses that tell a client something even when the words that came with them do not."""
_NEVER: Final = frozenset({407, 511})
"""Statuses between the fleet and a proxy; a client would take them for its own."""


class SecondWitness:
    """Of one request. `close` must be called in the end; until then refusals are owed to their breakers."""

    def __init__(self, context: RequestContext, call: Call) -> None:
        self._context = context
        self._call = call
        self._heard: list[HeldResponse] = []
        self._busy: HeldResponse | None = None  # the last one of a server that had enough to do
        self._owed: list[tuple[HeldResponse, Lease]] = []
        self._poison = context.poison
        body = call.body
        self._body = body if isinstance(body, bytes) and call.runs else None
        standing = Standing.CLEAR
        if self._body is not None and self._poison:
            standing = self._poison.standing(call.model, self._body, context.clock.now())
        self.convicted = standing is Standing.CONVICTED
        self.suspect = standing is not Standing.CLEAR
        """Whether a runner died while the request was there, so that nobody else shall be beside it."""
        self.agreed: HeldResponse | None = None
        """The first of two refusals that say the same: what the client gets, at once."""
        self.others_failed = False
        """Whether some server has failed otherwise than by a refusal."""

    def __bool__(self) -> bool:
        return bool(self._heard) or self._busy is not None

    @property
    def patient(self) -> bool:
        """Whether nothing was heard but that servers have enough to do."""
        return self._busy is not None and not self._heard

    @property
    def doubtful(self) -> bool:
        """Whether all that is heard so far may well be the request's own fault."""
        return bool(self._heard) and all(one.end.ground in (Ground.DOUBT, Ground.SIZE) for one in self._heard)

    def hear(self, saved: HeldResponse, lease: Lease) -> None:
        """Take a refusal down. Its lease is closed, and has told its breaker nothing."""
        if saved.end.busy:
            self._busy = saved
            self._settle(lease, Signal.NEUTRAL)
            return
        first = next((one for one in self._heard if one.end.agrees(saved.end)), None)
        self._heard.append(saved)
        if saved.end.deadly and self._died(lease):
            first = first or saved
            self._settle(lease, Signal.NEUTRAL)
        else:
            self._owed.append((saved, lease))
        if saved.end.ground is Ground.ROUTE:
            self._note_route(lease)
        if first is not None and self.agreed is None:
            self.agreed = first
            for _, each in self._owed:
                self._settle(each, Signal.NEUTRAL)
            self._owed.clear()

    def refuse_poison(self) -> NoReturn:
        """Raises PoisonousRequest: two servers have paid for it already (`convicted`)."""
        raise PoisonousRequest(
            "this request has crashed the model runners of two servers and is not sent to another",
            details="change the request; the same one is tried again some minutes from now",
        )

    def broken_off(self, end: End, lease: Lease) -> None:
        """The answer ended so in the middle: perhaps because the runner died."""
        if isinstance(end, StreamError) and is_death(end):
            self._died(lease)

    def _died(self, lease: Lease) -> bool:
        """A runner died, of this request perhaps; True if it is not the first, which nobody else is to pay for."""
        if self._body is None:
            return False
        alone, self.suspect = self.suspect, True
        now = self._context.clock.now()
        return self._poison.died(lease.pair.model, self._body, lease.pair.server, now, alone=alone)

    def served(self) -> None:
        """Another server answers: those before have failed."""
        if self.suspect and self._body is not None:
            self._poison.answered(self._call.model, self._body)
        if not self._owed:
            return
        owed, self._owed = self._owed, []
        for saved, lease in owed:
            self._settle(lease, convict(saved.end))
            match saved.end.ground:
                case Ground.MEMORY:
                    self._pass_over(lease, "the model does not fit into its memory", _NO_ROOM)
                case Ground.BUSY:
                    self._pass_over(lease, "has enough to do", _FULL)
                case Ground.STANDING:
                    lease.cell.mailbox.cast(Unwelcome(saved.end.status, lease.pair.model))

    def close(self) -> None:
        """Nobody will say more: each refusal counts for what it proves by itself. Idempotent."""
        owed, self._owed = self._owed, []
        for saved, lease in owed:
            self._settle(lease, classify(saved.end))
            if saved.end.status in (401, 407):
                lease.cell.mailbox.cast(Unwelcome(saved.end.status, lease.pair.model))

    def last_word(self) -> HeldResponse:
        """The refusal that is passed on to the client. Raises FleetError if none is any use to it."""
        saved = self.agreed or self._best()
        status, server = saved.end.status, saved.server
        if saved.end.ground is Ground.STANDING and not self._all_refuse_the_fleet():
            raise BackendRefused(f"server '{server}' does not let the fleet in ({status})", 502)
        if saved.end.ground is Ground.ROUTE:
            raise self.no_route()
        if self._tells_our_key(saved):
            raise BackendRefused(f"server '{server}' answered {status} with the fleet's own key in it", 502)
        if saved.end.ours and status not in _NEVER:
            return saved
        raise BackendRefused(
            f"server '{server}' answered {status} without an error of its API",
            status if status in _KEPT else 502,
            details="something that stands before the server may have said that",
            retry_after=saved.retry_after,
        )

    def _tells_our_key(self, saved: HeldResponse) -> bool:
        """Whether it repeats the key that the fleet has shown it, which is no business of the client's."""
        cell = self._context.servers.get(saved.server)
        key = cell.state.spec.plain_key.encode() if cell is not None else b""
        return bool(key) and key in saved.body

    def no_route(self) -> RouteMissing:
        """What is said when all servers are too old."""
        return RouteMissing(
            f"no server of this fleet has {self._call.endpoint}", details="their Ollama is too old: update it"
        )

    def _settle(self, lease: Lease, signal: Signal) -> None:
        """A server that is gone meanwhile shall not get a breaker; whoever takes its name would inherit it."""
        if self._context.servers.get(lease.pair.server) is lease.cell:
            lease.settle(signal)

    def _note_route(self, lease: Lease) -> None:
        state, endpoint = lease.cell.state, self._call.endpoint
        if self._context.missing_routes.note(state.id, endpoint, state.version, self._context.clock.now()):
            log.warning("server has no %s: it is not asked for it again", endpoint, extra={"server": state.id})

    def _best(self) -> HeldResponse:
        """The first of those that tell the client most."""
        heard = self._heard if self._busy is None else [*self._heard, self._busy]
        best = heard[0]
        for saved in heard[1:]:
            if saved.outranks(best):
                best = saved
        return best

    def _all_refuse_the_fleet(self) -> bool:
        """Whether each server that is in service and has the model was asked, and denied the fleet access."""
        if (
            self.others_failed
            or self._busy is not None
            or any(one.end.ground is not Ground.STANDING for one in self._heard)
        ):
            return False
        if self._call.pinned is not None:
            return True
        asked, model = {one.server for one in self._heard}, self._call.model
        others = [cell.state for cell in self._context.servers.values() if cell.state.id not in asked]
        return not any(s.admin is Admin.ACTIVE and (model in s.models or model == ANY_MODEL) for s in others)

    def _pass_over(self, lease: Lease, why: str, seconds: float) -> None:
        until = self._context.clock.now() + seconds
        self._context.scheduler.mailbox.cast(BanPair(lease.pair, why, until, cooldown=True))
