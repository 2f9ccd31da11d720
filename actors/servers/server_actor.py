"""One actor per backend server: digests probes, keeps the inventory, drains, revokes what has stalled."""

from __future__ import annotations

import logging
import math
from typing import assert_never

import trio

from actors.requests.stall_watch import check, next_check
from actors.servers.server_context import ServerContext
from actors.state.messages import (
    LeaseClosed,
    LeaseOpened,
    ModelMissing,
    Probed,
    ServerChanged,
    ServerMail,
    SetAdmin,
    Unloads,
    Unwelcome,
    Welcome,
)
from actors.state.servers import ServerCell
from fleet.breakers.outcomes import Revoked
from fleet.breakers.recovery_log import Failure, Source
from fleet.breakers.values import VERDICT, BreakerState
from fleet.common.ids import ANY_MODEL, ModelName, Pair
from fleet.models.inventory import by_name
from fleet.protocol.timestamps import seconds
from fleet.scheduling.estimates.evictions import residents_of
from fleet.scheduling.server_state import Admin, Health, Order, Row, ServerState

log = logging.getLogger("fleet.server")

_FINE = "answers probes"
"""Why a server is healthy."""


class ServerActor:
    """One incarnation; everything that matters lives in the cell."""

    def __init__(self, context: ServerContext, cell: ServerCell) -> None:
        self._context = context
        self._cell = cell
        self._watch_at = math.inf
        self._drain_by = math.inf

    async def run(self) -> None:
        """Serve the mailbox until cancelled. After a crash: open leases are found in the cell, nothing is lost."""
        self._recover(trio.current_time())
        while True:
            message: ServerMail | None = None
            with trio.move_on_at(min(self._watch_at, self._drain_by, self._cell.state.until)):
                message = await self._cell.mailbox.receive()
            now = trio.current_time()
            if message is not None:
                self._handle(message, now)
            if now >= self._watch_at:
                check(self._context.config.current, self._context.breakers, self._cell, now)
                self._watch_at = next_check(self._cell, now) if self._cell.watched else math.inf
            if now >= self._drain_by:  # what still runs is revoked
                self._drain_by = math.inf
                for lease in list(self._cell.leases.values()):
                    lease.revoke(Revoked("drain timeout"))
            if now >= self._cell.state.until:
                self._order(SetAdmin(Order.ACTIVATE, "the maintenance is over", self._cell.state.by), now)

    def _recover(self, now: float) -> None:
        if self._cell.watched:
            self._watch_at = next_check(self._cell, now)
        if self._cell.state.admin in (Admin.DRAINING, Admin.MAINTENANCE):
            self._start_drain(now)
        self._announce()

    def _handle(self, message: ServerMail, now: float) -> None:
        match message:
            case Probed():
                self._digest(message, now)
            case SetAdmin(done=done):
                self._order(message, now)
                if done is not None:
                    done.resolve(None)
            case LeaseOpened():
                self._watch_at = min(self._watch_at, next_check(self._cell, now))
            case LeaseClosed():
                self._emptied(now)
            case ModelMissing(model):  # the inventory was stale: route none of it here, look again now
                if self._cell.state.models.pop(model, None) is not None:
                    self._announce()
                    self._cell.probe_now.set()
            case Unwelcome(status, model):
                self._unwelcome(f"answers probes, but requests for {model} with {status}: is its api_key right?")
            case Welcome():
                self._unwelcome("")
            case Unloads(model):
                self._unloads(model)
            case _:
                assert_never(message)

    def _announce(self) -> None:
        self._context.scheduler.mailbox.cast(ServerChanged(self._cell.state.id))

    # ---- probes

    def _digest(self, probed: Probed, now: float) -> None:
        state = self._cell.state
        self._note(probed, now)
        if probed.error:
            self._failed_round(probed.error, now)
        else:
            state.failed_rounds = 0
            state.last_response = probed.seconds
            state.seen = True
            if (models := by_name(probed.tags or [])) != state.models:
                state.models = models  # the same mapping says that nothing has changed (see `ollama_api.merged_lists`)
            for gone in state.stats.keys() - state.models.keys():
                del state.stats[gone]
            if probed.resident is None:
                self._cell.looked_for.clear()
            else:
                state.resident = self._resident(by_name(probed.resident), probed.began)
                self._context.model_loads.looked(state.id, state.resident, now)
                residents = residents_of(state.resident, lambda end: self._context.clock.moment(seconds(end)))
                self._context.scheduler.expectations.shown(state, residents, now)
            state.version = probed.version or state.version
            self._context.missing_routes.seen(state.id, state.version, now)
            self._well(now)
        if probed.asked is not None:
            probed.asked.set()
        self._announce()

    def _well(self, now: float) -> None:
        """A round has gone well."""
        state, was_down = self._cell.state, self._cell.state.health is Health.UNHEALTHY
        if not state.judge(Health.HEALTHY, now, state.unwelcome or _FINE):
            return
        self._context.missing_routes.forget(state.id)  # perhaps it was only something before it that came up
        if was_down:
            self._context.breakers.returned(state.id)
        log.info("server is healthy", extra={"server": state.id, "models": len(state.models)})

    def _note(self, probed: Probed, now: float) -> None:
        """A probe of a server that is unhealthy was an attempt to recover, unless the server has just been removed."""
        state = self._cell.state
        if state.health is not Health.UNHEALTHY or self._context.servers.get(state.id) is not self._cell:
            return
        failure = Failure(probed.kind, probed.error) if probed.error else None
        itself = Pair(state.id, ANY_MODEL)
        self._context.recovery_log.attempt(itself, Source.HEALTH_CHECK, now, state=_worst(state), failure=failure)

    def _failed_round(self, error: str, now: float) -> None:
        """A server that was never healthy is unhealthy at once; a healthy one gets `health.failures` rounds."""
        state = self._cell.state
        state.failed_rounds += 1
        if state.health is Health.HEALTHY and state.failed_rounds < self._context.config.current.health.failures:
            self._cell.probe_now.set()  # look again at once: a second opinion, not a second interval
            return
        state.resident = {}
        self._cell.looked_for.clear()
        self._context.model_loads.lost(state.id)
        self._context.scheduler.expectations.lost(state, now)
        if state.judge(Health.UNHEALTHY, now, error):
            log.warning("server is unhealthy: %s", error, extra={"server": state.id})

    def _resident(self, shown: dict[ModelName, Row], began: float) -> dict[ModelName, Row]:
        """What a probe has shown, without what was unloaded since it began."""
        cell = self._cell
        cell.unloaded = {model: when for model, when in cell.unloaded.items() if when >= began}
        cell.looked_for = (cell.looked_for & cell.state.models.keys()) - shown.keys()
        return {model: row for model, row in shown.items() if model not in cell.unloaded}

    def _unloads(self, model: ModelName) -> None:
        """Unless others still use it, it is gone. The server itself might still say otherwise if it were asked now."""
        state = self._cell.state
        if model not in state.models or state.ledger.of_model(model):
            return
        self._cell.unloaded[model] = now = self._context.clock.now()
        self._context.scheduler.expectations.unloaded(state, model, now)
        if model in state.resident:
            state.resident = {name: row for name, row in state.resident.items() if name != model}
            self._announce()

    def _unwelcome(self, why: str) -> None:
        """Probes are answered and requests are not, or they are again: that is the server's health too."""
        state = self._cell.state
        if why and not state.unwelcome:
            log.warning("server refuses requests: %s", why, extra={"server": state.id})
        state.unwelcome = why
        if state.health is Health.HEALTHY:
            state.why = why or _FINE

    # ---- administrative state

    def _order(self, given: SetAdmin, now: float) -> None:
        state = self._cell.state
        if not state.order(given.order, now, given.why, given.by, given.until):
            return
        log.info("server is %s", state.admin.value, extra={"server": state.id, "why": given.why})
        self._context.journal.touch("admin", state.id)
        self._drain_by = math.inf
        if self._cell.state.admin in (Admin.DRAINING, Admin.MAINTENANCE):
            self._start_drain(now)
        if self._cell.state.admin is not Admin.MAINTENANCE:
            self._cell.probe_now.set()
        self._context.servers.ended.unpark_all()
        self._announce()

    def _start_drain(self, now: float) -> None:
        self._drain_by = now + self._context.config.current.drain_timeout
        self._emptied(now)

    def _emptied(self, now: float) -> None:
        state = self._cell.state
        if not self._cell.leases and state.order(Order.EMPTIED, now, "drained"):
            self._drain_by = math.inf
            self._context.servers.ended.unpark_all()
            self._context.journal.touch("admin", state.id)
            self._announce()


def _worst(state: ServerState) -> BreakerState:
    """What the least happy breaker of a server says."""
    shown = {gate.state for gate in state.gates.values()}
    return next(
        (said for said in (BreakerState.OPEN, BreakerState.HALF_OPEN) if VERDICT[said] in shown), BreakerState.CLOSED
    )
