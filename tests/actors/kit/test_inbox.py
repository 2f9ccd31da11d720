from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.inbox import Inbox


def test_what_finds_no_room_is_handed_back() -> None:
    inbox = Inbox[str](2)
    assert [inbox.offer(each) for each in "abc"] == [None, None, "c"]
    assert (inbox.take(1), len(inbox), inbox.take(9), inbox.take(9)) == (["a"], 1, ["b"], [])


def test_the_oldest_makes_room_where_the_latest_matter_more() -> None:
    inbox = Inbox[str](2, oldest_goes=True)
    assert [inbox.offer(each) for each in "abc"] == [None, None, "a"]
    assert inbox.take(9) == ["b", "c"]


async def test_the_reader_rests_until_something_comes(autojump_clock: MockClock) -> None:
    inbox, found = Inbox[int](9), list[list[int]]()

    async def read() -> None:
        while True:
            await inbox.wait()
            found.append(inbox.take(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert found == []
        for number in range(3):
            inbox.offer(number)
        await wait_all_tasks_blocked()
        assert found == [[0, 1], [2]]
        nursery.cancel_scope.cancel()
    inbox.offer(3)  # the reader is gone, what comes waits for the next one
    assert inbox.take(9) == [3]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_reader_can_be_woken_for_nothing(waits: bool, autojump_clock: MockClock) -> None:
    inbox = Inbox[int](9)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(1):
            if waits:
                nursery.start_soon(inbox.wait)
                await wait_all_tasks_blocked()
            inbox.wake()  # nobody rests: then it is for nobody
            await wait_all_tasks_blocked()
        assert not nursery.child_tasks
