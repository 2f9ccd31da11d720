"""Mailboxes outlive their readers; promises are answered once."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.mailbox import ActorGone, Mailbox, Promise


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
    with pytest.raises(ActorGone, match="5 s"):
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
