"""What is said of an order that was not carried out: whether it may be yet."""

from __future__ import annotations

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.mailbox import ActorGone, Mailbox, Promise
from actors.kit.reply import heard
from actors.state.messages import SetAdmin
from fleet.common.errors import NoAnswer
from fleet.common.ids import ServerId
from fleet.scheduling.server_state import Order
from tests.kit.fleets.fleet import open_fleet

A = ServerId("a")


async def test_an_order_that_is_late_may_still_be_carried_out(autojump_clock: MockClock) -> None:
    with pytest.raises(NoAnswer) as caught:
        await heard(Promise[None](), "server 'a'")
    assert caught.value.message == "no answer from server 'a'"
    assert caught.value.details == "the order may still be carried out"


async def test_an_order_to_an_actor_that_has_ended_will_never_be_carried_out(autojump_clock: MockClock) -> None:
    """Both were told in the same words, so that who gave the order waited for what could not come."""
    promise = Promise[None]()
    promise.reject(ActorGone("server a was removed"))
    with pytest.raises(NoAnswer) as caught:
        await heard(promise, "server 'a'")
    assert caught.value.message == "server 'a' has ended before it acted"
    assert "will not be carried out" in str(caught.value.details)


async def test_orders_that_a_server_has_not_read_are_dropped_with_it(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        done = Promise[None]()
        cell = fleet.cell("a")
        cell.mailbox = Mailbox("unread")
        cell.mailbox.cast(SetAdmin(Order.DRAIN, "why", "me", done=done))
        await fleet.system.remove_server(A, drain=False)
        await wait_all_tasks_blocked()
        with pytest.raises(NoAnswer, match="ended before it acted"):
            await heard(done, "server 'a'")
