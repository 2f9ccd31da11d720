"""Mailboxes and promises: the only two ways in which actors hear from others."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class ActorGone(Exception):
    """The actor that should have answered has stopped for good."""


class Mailbox(Generic[T]):
    """An unbounded channel that outlives its reader.

    It belongs to whoever made it (the supervisor's frame), not to the actor: a crash loses the message in hand at the
    most, never those behind it. Every message type names, in its docstring, the bound that keeps the mailbox small.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._send, self._receive = trio.open_memory_channel[T](math.inf)

    def cast(self, message: T) -> None:
        """Leave a message; returns at once. Messages to a closed mailbox are dropped."""
        try:
            self._send.send_nowait(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def receive(self) -> T:
        """The next message. Cancelled: no message is lost."""
        return await self._receive.receive()

    def receive_nowait(self) -> T | None:
        """The next message, or None if there is none."""
        try:
            return self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            return None

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return self._receive.statistics().current_buffer_used

    def close(self) -> None:
        """No reader will ever come back: what is buffered is dropped, later casts vanish."""
        self._send.close()
        self._receive.close()


class Promise(Generic[T]):
    """One answer, once."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._value: T | None = None
        self._error: Exception | None = None

    @property
    def settled(self) -> bool:
        return self._event.is_set()

    def resolve(self, value: T) -> bool:
        """Answer; False if somebody already did."""
        return self._settle(value, None)

    def reject(self, error: Exception) -> bool:
        """Answer with an error; False if somebody already did."""
        return self._settle(None, error)

    def _settle(self, value: T | None, error: Exception | None) -> bool:
        if self._event.is_set():
            return False
        self._value, self._error = value, error
        self._event.set()
        return True

    async def wait(self, within: float) -> T:
        """The answer, or what it was rejected with; `ActorGone` after `within` seconds. Cancellation loses nothing."""
        with trio.move_on_after(within):
            await self._event.wait()
        if not self._event.is_set():
            raise ActorGone(f"no answer within {within:g} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set together with the event
