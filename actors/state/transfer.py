"""One management call under way, as the server's actor sees it: what it waits for, since when, and how to end it."""

from __future__ import annotations

import enum

import trio

from fleet.common.errors import FleetError, IdleTimeout, NoServer, Phase
from fleet.common.ids import ServerId
from fleet.config import Config


class TransferStage(enum.Enum):
    """What a transfer is waiting for, and hence how long it may stand still."""

    SENDING = "sending"
    THINKING = "thinking"
    """The server has everything and checks or quantises it, silently."""
    ANSWERING = "answering"
    READING = "reading"
    """The client has to take what we hold."""


class Transfer:
    """One running transfer, as the server's actor sees it."""

    def __init__(self, server: ServerId) -> None:
        self.scope = trio.CancelScope()
        self.error: FleetError | None = None
        self._server = server
        self._stage = TransferStage.SENDING
        self._beat = trio.current_time()

    def moved(self, stage: TransferStage) -> None:
        self._stage, self._beat = stage, trio.current_time()

    def alive(self) -> None:
        """The server has said something."""
        self.moved(TransferStage.ANSWERING)

    def revoke(self, why: str) -> None:
        """End it now; the client sees a broken answer."""
        self._stop(NoServer(f"server '{self._server}' was taken away: {why}", retry_after=2.0))

    def check(self, now: float, config: Config) -> None:
        """End it if it stands still for too long."""
        timeouts = config.timeouts
        limits = {TransferStage.READING: timeouts.write, TransferStage.THINKING: config.total_timeout}
        limit = limits.get(self._stage, timeouts.first_byte)
        if now - self._beat >= limit:
            text = f"the transfer stood still for {limit:g} s ({self._stage.value})"
            self._stop(IdleTimeout(text, Phase.BODY))

    def _stop(self, error: FleetError) -> None:
        self.error = self.error or error
        self.scope.cancel()
