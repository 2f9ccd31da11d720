"""Mailboxes outlive their readers; promises are answered once."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.mailbox import ActorSilent, Mailbox, Promise


async def test_messages_come_in_the_order_in_which_they_were_cast() -> None:
    mailbox = Mailbox[int]("test")
    for n in range(3):
        mailbox.cast(n)
    assert mailbox.depth == 3
    assert [await mailbox.receive(), mailbox.receive_nowait(), await mailbox.receive()] == [0, 1, 2]
    assert mailbox.receive_nowait() is None
    assert mailbox.depth == 0


async def test_a_crashed_reader_loses_nothing_behind_the_message_in_hand() -> None:
    mailbox = Mailbox[int]("test")
    for n in range(3):
        mailbox.cast(n)
    assert await mailbox.receive() == 0  # a reader takes it and dies
    mailbox.cast(3)
    assert [await mailbox.receive() for _ in range(3)] == [1, 2, 3]


async def test_a_cancelled_reader_loses_no_message(autojump_clock: MockClock) -> None:
    mailbox = Mailbox[int]("test")
    with trio.move_on_after(1) as waited:
        await mailbox.receive()
    assert waited.cancelled_caught
    mailbox.cast(1)
    assert await mailbox.receive() == 1


@pytest.mark.parametrize("cast_first", [True, False])
async def test_a_message_that_arrives_together_with_the_cancellation_is_kept(
    nursery: trio.Nursery, cast_first: bool
) -> None:
    mailbox = Mailbox[int]("test")
    scope = trio.CancelScope()
    got: list[int] = []

    async def read() -> None:
        with scope:
            got.append(await mailbox.receive())

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    if cast_first:
        mailbox.cast(1)
        scope.cancel()
    else:
        scope.cancel()
        mailbox.cast(1)
    await wait_all_tasks_blocked()
    assert (len(got), mailbox.depth) == ((1, 0) if cast_first else (0, 1))


async def test_a_closed_mailbox_swallows_what_comes_later() -> None:
    mailbox = Mailbox[int]("test")
    mailbox.cast(1)
    mailbox.close()
    mailbox.close()
    mailbox.cast(2)
    assert mailbox.receive_nowait() is None
    assert mailbox.depth == 0


class Handler:
    """An actor that lends its handler while it rests, and notes who handled what."""

    def __init__(self) -> None:
        self.mailbox = Mailbox[int]("test")
        self.at_once: list[int] = []
        self.read: list[int] = []
        self.failures: list[str] = []

    async def run(self) -> None:
        while True:
            try:
                self.read.append(await self.mailbox.receive(self.handle))
            except ValueError as failure:
                self.failures.append(str(failure))
                await trio.sleep(1)  # restarted after a while

    def handle(self, message: int) -> None:
        if message < 0:
            self.mailbox.cast(message * 100)
            raise ValueError(f"no {message}")
        self.at_once.append(message)
        if message >= 10:
            self.mailbox.cast(message // 10)


@pytest.fixture
async def handler(nursery: trio.Nursery) -> Handler:
    handler = Handler()
    nursery.start_soon(handler.run)
    await wait_all_tasks_blocked()
    return handler


async def test_an_actor_at_rest_handles_messages_in_the_senders_turn(handler: Handler) -> None:
    assert handler.mailbox.resting
    handler.mailbox.cast(1)
    handler.mailbox.cast(2)
    assert (handler.at_once, handler.mailbox.depth) == ([1, 2], 0)


async def test_what_a_handler_sends_to_its_own_actor_waits_until_that_is_awake(handler: Handler) -> None:
    handler.mailbox.cast(30)
    assert not handler.mailbox.resting
    handler.mailbox.cast(4)
    assert handler.at_once == [30]
    await wait_all_tasks_blocked()
    assert (handler.at_once, handler.read) == ([30], [3, 4])
    handler.mailbox.cast(5)
    assert handler.at_once == [30, 5]


async def test_a_handler_that_fails_crashes_its_actor_and_not_the_sender(
    autojump_clock: MockClock, handler: Handler
) -> None:
    """Only the message in hand is lost: what came behind it is there for the next incarnation."""
    handler.mailbox.cast(-1)
    handler.mailbox.cast(2)
    assert (handler.at_once, handler.failures) == ([], [])
    await wait_all_tasks_blocked()
    assert handler.failures == ["no -1"]
    await trio.sleep(2)
    assert handler.read == [-100, 2]
    assert handler.mailbox.resting


async def test_who_is_cancelled_by_its_own_handler_loses_nothing(nursery: trio.Nursery) -> None:
    mailbox, scope = Mailbox[int]("test"), trio.CancelScope()

    def handle(message: int) -> None:
        scope.cancel()
        mailbox.cast(message + 1)
        raise ValueError("and it fails, too")

    async def read() -> None:
        with scope:
            await mailbox.receive(handle)

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    mailbox.cast(1)
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    with pytest.raises(ValueError, match="too"):
        await mailbox.receive()
    assert await mailbox.receive() == 2


async def test_a_mailbox_has_one_reader(handler: Handler) -> None:
    with pytest.raises(trio.BusyResourceError):
        await handler.mailbox.receive()


async def test_a_reader_hears_that_its_mailbox_is_closed(nursery: trio.Nursery) -> None:
    mailbox, heard = Mailbox[int]("test"), trio.Event()

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await mailbox.receive()
        heard.set()

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    mailbox.close()
    await wait_all_tasks_blocked()
    assert heard.is_set()
    with pytest.raises(trio.ClosedResourceError):
        await mailbox.receive()


async def test_a_promise_is_answered_once() -> None:
    promise = Promise[int]()
    before = promise.settled
    assert promise.resolve(1)
    assert (before, promise.settled) == (False, True)
    assert not promise.resolve(2)
    assert not promise.reject(ValueError("late"))
    assert [await promise.wait(1), await promise.wait(0)] == [1, 1]


async def test_a_promise_may_be_answered_with_nothing() -> None:
    promise = Promise[None]()
    promise.resolve(None)
    await promise.wait(0)


async def test_a_promise_may_be_broken() -> None:
    promise = Promise[int]()
    promise.reject(ValueError("no"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await promise.wait(1)


async def test_nobody_waits_for_ever(autojump_clock: MockClock) -> None:
    promise = Promise[int]()
    with pytest.raises(ActorSilent, match="5 s"):
        await promise.wait(5)
    assert trio.current_time() == 5
    assert promise.resolve(3)
    assert await promise.wait(0) == 3


async def test_a_waiter_that_is_cancelled_takes_nothing_along(autojump_clock: MockClock) -> None:
    promise = Promise[int]()
    with trio.move_on_after(1):
        await promise.wait(10)
    assert promise.resolve(1)
    assert await promise.wait(0) == 1


async def test_all_who_wait_get_the_answer(nursery: trio.Nursery) -> None:
    promise = Promise[str]()
    got: list[str] = []

    async def wait() -> None:
        got.append(await promise.wait(5))

    for _ in range(3):
        nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    promise.resolve("now")
    await wait_all_tasks_blocked()
    assert got == ["now"] * 3
