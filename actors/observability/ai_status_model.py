"""The AI status from a model: asked through our own queue, behind everybody, and only where nobody is in the way.

It is asked of a server that could begin at once, and that either has the model in memory or has nothing in memory and
nothing to do: so no client's model is displaced, and nobody's place in line is taken. As soon as somebody has to wait
it gives way. Neither question nor answer is ever logged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
import trio

from actors.state.messages import OURSELVES
from fleet.common.errors import FleetError
from fleet.common.ids import ANY_MODEL, ModelName, RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.observability.health_summary.status_text import INSTRUCTIONS, FleetFigures, cleaned, question
from fleet.protocol.call import Call, ClientGone, Downstream, Headers
from fleet.protocol.dialects import NATIVE
from fleet.protocol.headers import LOWEST_PRIORITY

if TYPE_CHECKING:
    from actors.observability.watched_fleet import WatchedFleet
    from fleet.observability.health_summary.summary import HealthSummary
    from fleet.scheduling.server_state import ServerState

log = logging.getLogger("fleet.ai_status")

_PATH: Final = "/api/generate"
_TOKENS: Final = 120
_MOST: Final = 64 * 1024
"""Bytes of an answer; there are a few hundred of text, and the numbers of its tokens."""
_GIVE_WAY: Final = 0.2
"""Seconds between two looks at the line while the model writes."""


Exchange = Callable[[Call, Downstream], Awaitable[None]]
"""The whole life of one request, from its place in line to its end. Raises FleetError."""


class CollectedAnswer:
    """A Downstream that keeps the answer; one that is too long is not taken to its end."""

    def __init__(self) -> None:
        self.started = False
        self.status = 0
        self.body = b""
        self.whole = False

    async def start(self, status: int, headers: Headers) -> None:
        """The head."""
        self.started, self.status = True, status

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        """Keep a piece. Raises ClientGone when that is too much."""
        if len(self.body) + len(data) > _MOST:
            raise ClientGone
        self.body += data

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        """Keep the last piece; now it is whole."""
        await self.write(last)
        self.whole = True

    def cut(self) -> None:
        """It stays in pieces."""

    def text(self) -> str:
        """What the model wrote, cleaned; empty if that cannot be told."""
        if not self.whole or self.status != 200:
            return ""
        try:
            said: Any = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return ""
        text = said.get("response") if isinstance(said, dict) else None
        return cleaned(text) if isinstance(text, str) else ""


class StatusModel:
    """Asks the model, and says once why it does not write, until it does again."""

    def __init__(self, fleet: WatchedFleet, exchange: Exchange) -> None:
        self._fleet = fleet
        self._exchange = exchange
        self._said = ""

    async def write(
        self,
        model: str,
        within: float,
        verdict: HealthSummary,
        figures: FleetFigures,
        outdated: Callable[[], bool] = bool,
    ) -> str | None:
        """Its text; empty if nothing came of it, None if this was no time to ask.

        Cancelled, after `within` seconds, which begin here, or as soon as nobody wants the text any more (`outdated`):
        the request is given up, and its slot is free.
        """
        name = canonical(model)
        if name == ANY_MODEL or not self._fleet.servers.known(name):
            if all(cell.state.seen for cell in self._fleet.servers.values()):
                self._complain(model, "no server has it")
            return None
        server = place(self._fleet, name)
        if server is None:
            return None  # a busy fleet is no trouble
        return await self._ask(self.call(name, server, verdict, figures), model, within, outdated)

    async def _ask(self, call: Call, model: str, within: float, outdated: Callable[[], bool]) -> str:
        answered, trouble, ended = CollectedAnswer(), "", False
        with trio.move_on_after(within) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give_way, call, outdated, nursery.cancel_scope)
                try:
                    await self._exchange(call, answered)
                except FleetError as error:
                    trouble = error.reason.lower()
                ended = True
                nursery.cancel_scope.cancel()
        if limit.cancelled_caught:
            self._complain(model, f"it took longer than {within:g} s")
            return ""
        text = answered.text()
        if ended:  # else it gave way, which is no trouble
            self._complain(model, "" if text else trouble or f"its answer is of no use (status {answered.status})")
        return text

    async def _give_way(self, call: Call, outdated: Callable[[], bool], scope: trio.CancelScope) -> None:
        """End the request as soon as it is in vain, somebody else waits for a slot, or the fleet has other plans."""
        while True:
            await trio.sleep(_GIVE_WAY)
            if outdated() or _wanted(self._fleet, call):
                scope.cancel()
                return

    def call(self, model: ModelName, server: ServerId, verdict: HealthSummary, figures: FleetFigures) -> Call:
        """The request: small, in one piece, at the lowest priority, with the runner options that clients use."""
        fleet = self._fleet
        runner = fleet.statistics.demand.options(model)  # with others, the server would load the model anew
        options = {name: value for name, value in runner.items() if name != "shift"}
        body: dict[str, object] = {
            "model": model,
            "system": INSTRUCTIONS,
            "prompt": question(self._known(verdict), figures),
            "stream": False,
            "think": False,
            "options": {**options, "num_predict": _TOKENS, "temperature": 0.2},
        }
        if "shift" in runner:
            body["shift"] = runner["shift"]
        return Call(
            request_id=RequestId(f"ai-status-{fleet.scheduler.next_number()}"),
            dialect=NATIVE,
            method="POST",
            target=_PATH,
            headers=[(b"content-type", b"application/json")],
            body=orjson.dumps(body),
            endpoint=_PATH,
            model=model,
            asked_model=model,
            priority=LOWEST_PRIORITY,
            pinned=server,
            client=OURSELVES,
            by=OURSELVES,
            runner=runner or None,
        )

    def _known(self, verdict: HealthSummary) -> HealthSummary:
        """The verdict, about servers and models that exist: other names may be a client's own words."""
        return replace(verdict, subjects=tuple(each for each in verdict.subjects if self._exists(each)))

    def _exists(self, subject: str) -> bool:
        kind, _, name = subject.partition(":")
        if kind == "server":
            return ServerId(name) in self._fleet.servers
        return kind == "model" and self._fleet.servers.known(ModelName(name))

    def _complain(self, model: str, trouble: str) -> None:
        said = f"model {model}: {trouble}" if trouble else ""
        if said and said != self._said:
            log.warning("the AI status is put together by rules: %s", said)
        self._said = said


def place(fleet: WatchedFleet, model: ModelName) -> ServerId | None:
    """Where it may be asked for now without harm to anybody; None if nowhere."""
    if _wanted(fleet) or not fleet.scheduler.memory.total.free:
        return None
    suited = [cell.state for cell in fleet.servers.values() if cell.state.ready(model) and _harmless(cell.state, model)]
    best = min(suited, key=lambda state: (model not in state.resident, -state.ledger.free, state.id), default=None)
    return None if best is None else best.id


def _harmless(state: ServerState, model: ModelName) -> bool:
    return model in state.resident or not (state.resident or state.in_use)


def _wanted(fleet: WatchedFleet, own: Call | None = None) -> bool:
    """Whether the fleet has other things to do than to write about itself."""
    scheduler = fleet.scheduler
    waiting = any(ticket.open and (own is None or ticket.call is not own) for ticket in scheduler.tickets.values())
    return fleet.servers.draining or scheduler.memory.paused or waiting
