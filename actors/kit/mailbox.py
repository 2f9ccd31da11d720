"""Mailboxes and promises: the only two ways in which actors hear from others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class ActorGone(Exception):
    """The actor that should have answered has stopped for good: what it was told, and has not done, never will be."""


class ActorSilent(Exception):
    """The actor has not answered in time; it may yet."""


class Mailbox(Generic[T]):
    """An unbounded channel with one reader, which it outlives.

    It belongs to whoever made it (the supervisor's frame), not to the actor: a crash loses the message in hand at the
    most, never those behind it. Every message type names, in its docstring, the bound that keeps the mailbox small.

    From outside it is a memory channel; inside it is a deque and the parked task of the reader, for the sake of
    `at_once`: an actor at rest may lend its handler, and what is cast then is handled in the sender's turn. It is still
    one message at a time, each atomic, in the order in which they came, and a handler that fails crashes the actor, not
    the sender. What that saves are two switches of tasks, which cost more than anything the dispatcher decides.
    """

    __slots__ = ("_busy", "_closed", "_failure", "_lent", "_messages", "_reader", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._messages: deque[T] = deque()
        self._reader: trio.lowlevel.Task | None = None
        self._lent: Callable[[T], None] | None = None
        self._busy = False
        self._failure: Exception | None = None
        self._closed = False

    def cast(self, message: T) -> None:
        """Leave a message; returns at once. Messages to a closed mailbox are dropped."""
        if self._reader is None or self._busy:
            if not self._closed:
                self._messages.append(message)
        elif self._lent is None:
            self._wake(outcome.Value(message))
        else:
            self._hand_over(message, self._lent)

    async def receive(self, at_once: Callable[[T], None] | None = None) -> T:
        """The next message. Cancelled: no message is lost.

        Messages that come while there is none to return go to `at_once`, if given; what that raises is raised here.
        """
        if self._failure is not None:
            crash, self._failure = self._failure, None
            raise crash
        if self._messages:
            await trio.lowlevel.checkpoint()
        return self._messages.popleft() if self._messages else await self._park(at_once)

    def receive_nowait(self) -> T | None:
        """The next message, or None if there is none."""
        return self._messages.popleft() if self._messages else None

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    @property
    def resting(self) -> bool:
        """Whether the reader waits, with nothing in hand and nothing left to read."""
        return self._reader is not None and not self._busy

    def close(self) -> None:
        """No reader will ever come back: what is buffered is dropped, later casts vanish."""
        self._closed = True
        self._messages.clear()
        if self._reader is not None:
            self._wake(outcome.Error(trio.ClosedResourceError()))

    # What makes lending sound is one fact: a reader that waits, and is not lent at the moment, has an empty mailbox. It
    # waits only when there is nothing to return, and from then on whatever comes is handled at once, or wakes it. So a
    # message that is handled in its sender's turn overtakes none. What could break that:
    #
    # The handler may cast to its own mailbox, by whatever it sets off. Then `_busy` has the message wait: handled on
    # the spot, it would find the actor's state half-changed. Afterwards the reader is woken with the first of those;
    # from that moment it is no reader any more, though it has not run, so that what comes meanwhile queues behind them.
    # The handler may raise: that is kept for the reader, since the sender has done nothing wrong and may be in the
    # middle of its own clean-up; what is no Exception (somebody presses ^C) goes through to the sender. And the handler
    # may have the reader cancelled, or close the mailbox: then there is nobody to wake, and messages and failure stay
    # for whoever reads next. Nothing in here may await.
    def _hand_over(self, message: T, handle: Callable[[T], None]) -> None:
        """Let the actor handle it now. What it casts to itself meanwhile waits, and wakes it afterwards."""
        self._busy = True
        try:
            handle(message)
        except Exception as failure:
            self._failure = failure
        finally:
            self._busy = False
        if self._reader is None:  # cancelled meanwhile: it finds what there is when it comes back
            return
        if self._failure is not None:
            crash, self._failure = self._failure, None
            self._wake(outcome.Error(crash))
        elif self._messages:
            self._wake(outcome.Value(self._messages.popleft()))

    def _wake(self, found: outcome.Outcome[T]) -> None:
        assert self._reader is not None
        reader, self._reader, self._lent = self._reader, None, None
        trio.lowlevel.reschedule(reader, found)

    async def _park(self, at_once: Callable[[T], None] | None) -> T:
        if self._closed:
            await trio.lowlevel.checkpoint_if_cancelled()  # who is being ended anyway has not crashed
            raise trio.ClosedResourceError
        if self._reader is not None:
            raise trio.BusyResourceError(f"mailbox '{self.name}' has a reader")

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = self._lent = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._reader, self._lent = trio.lowlevel.current_task(), at_once
        message: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return message


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
        """The answer, or what it was rejected with; `ActorSilent` after `within` seconds. Cancelling loses nothing."""
        with trio.move_on_after(within):
            await self._event.wait()
        if not self._event.is_set():
            raise ActorSilent(f"no answer within {within:g} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set together with the event
