"""The dispatcher at rest: it handles messages in the sender's turn, and still keeps its own time."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import BanPair, Submitted
from actors.state.ticket import PendingTicket
from fleet.breakers.outcomes import ClientLeft
from fleet.common.ids import Pair, RequestId, ServerId
from fleet.common.model_names import canonical
from tests.kit.fleets.fleet import chat, open_fleet

A = ServerId("a")


async def test_a_ticket_is_settled_in_the_turn_of_who_sent_it(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet:
        system, call = fleet.system, chat()
        await wait_all_tasks_blocked()
        tickets = [PendingTicket(n, RequestId(f"r{n}"), call.model, 0, float(n), call=call) for n in (1, 2)]
        for ticket in tickets:
            system.scheduler.tickets[ticket.number] = ticket
            system.scheduler.mailbox.cast(Submitted(ticket))
        first, second = tickets
        assert (first.open, second.open) == (False, True)
        assert first.lease is not None
        first.lease.close(ClientLeft())
        assert second.lease is not None
        second.lease.close(ClientLeft())
        fleet.assert_nothing_left()


async def test_a_ban_that_ends_while_the_dispatcher_rests_is_forgotten_in_time(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        await wait_all_tasks_blocked()
        fleet.system.scheduler.mailbox.cast(BanPair(Pair(A, canonical("m")), "test", trio.current_time() + 0.2))
        assert fleet.cell("a").state.barred == {"m:latest"}
        await trio.sleep(0.1)
        assert fleet.cell("a").state.barred
        await trio.sleep(0.2)
        assert not fleet.cell("a").state.barred
