"""Waiting for a better server although another is ready: the choice by what a request will cost where, in seconds.

Invariant, in place of `AtOnce`'s: nobody who waits, asked again now, would choose a server that is ready; and everybody
who waits is asked again at a finite time, so that a wrong estimate costs about its own size and no wake-up can be lost
(delay scheduling, Zaharia et al., EuroSys 2010).

A ticket looks at servers busy or not, those that have its model loaded first. If the cheapest is ready, it goes there;
if not, it stays in line with an *intent*, and whoever comes later counts it as work ahead: otherwise all would herd on
one warm server. When a server gets a free slot, three kinds may want it: those that wait for it; in each line the first
who would be done earlier here than where he hopes to be served; and nobody else. Expectations grow along a line, so
that first one is found by bisection and a decision does not depend on how many wait.

A load that throws out a model which others use has to be earned: what its line has saved up by waiting (`rents`) has to
be as much as others lose by it. And a line that has saved up a quarter more than a load costs altogether buys another
home, although everybody in it, asked for himself, would rather wait: the last one goes, whose wait is the longest.

What it is wrong about: expectations are as old as the last look. Who was promised the second slot of a server that then
slows down learns it at half as much again of its wait.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import Final

from fleet.common.randomness import Chance
from fleet.scheduling.choice.at_once import Proposal, put_winner_first, quiet, shared_models
from fleet.scheduling.choice.balancing import Prices, Scored
from fleet.scheduling.choice.intents import NOBODY, Ahead, Intent, Intents
from fleet.scheduling.server_index import ServerIndex
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Entry, Hope, Queue, Ticket, TicketLine

_SOONEST: Final = 0.05
_LATEST: Final = 30.0
"""Seconds until who waits is asked again, at least and at most."""
_PATIENCE: Final = 1.5
"""Asked again after this many times the wait that was expected."""
_BETTER: Final = 0.05
"""Seconds, and the share of what is left, by which another server has to be better than the one hoped for."""
_NEXT: Final = 4
"""How many of those who wait for a server are asked when it has a slot: the first may find a better one meanwhile."""
_LINES: Final = 8
"""How many lines are searched for somebody who would rather be served here."""
_WORTH: Final = 1.25
"""How many times what a load costs has to be saved up before one is bought that nobody would want for himself."""
_BIDDERS: Final = 8
"""How many of all these are asked; whoever is not is asked again in his time."""
_ENOUGH: Final = 6
"""How many servers are looked at that have a slot, and how many that have none: of twenty alike, six are as good."""
_FEW: Final = 4
"""So many candidates are all looked at: their prices explain the decision."""
_AT_ONCE: Final = 4
"""How many are reconsidered in one go when their time has come."""


class Planned:
    """One intent for each ticket that waits. Synchronous; every method leaves the invariant as it found it."""

    def __init__(
        self, prices: Prices, queue: Queue, index: ServerIndex, chance: Chance, most: int, *, capped: bool
    ) -> None:
        self._prices = prices
        self._queue = queue
        self._index = index
        self._chance = chance
        self._most = most
        self._capped = capped
        self._intents = Intents()
        self._now = 0.0
        prices.begin()
        self._looked: tuple[tuple[int, float], list[Scored]] = (-1, 0.0), []
        """What was seen last, for which ticket and when: one that has to wait after all is not looked at again."""

    def for_ticket(self, ticket: Ticket, now: float, *, may_wait: bool) -> list[Scored]:
        if not may_wait:
            ready = self._all_ready(ticket, self._most)
            return self.rank(ready, ticket, now) if ready else []
        if self._capped and self._somebody_goes(now):
            return []
        return self._wish(self._queue.entry(ticket), now, last=True)[1]

    def for_server(self, server: ServerState, now: float) -> Proposal | None:
        for entry in self._bidders(server, now):
            proposal = self._ask(entry, now, server)
            if proposal is not None:
                return proposal
        return None

    def for_anybody(self, now: float) -> Proposal | None:
        heads = sorted(line.head() for line in self._queue.lines())
        for entry in heads:
            proposal = self._ask(entry, now)
            if proposal is not None:
                return proposal
        return None

    def rank(self, candidates: Sequence[ServerState], ticket: Ticket, now: float) -> list[Scored]:
        price = self._prices.price
        return put_winner_first([(server, price(ticket, server, NOBODY, now)) for server in candidates], self._chance)

    def entered(self, ticket: Ticket, now: float) -> None:
        self._now = now
        self._prices.entered(ticket, now)
        entry = self._queue.entry(ticket)
        looked, scored = self._looked
        if looked != (ticket.number, now):
            scored = self._plan(entry, now)
        if scored:
            ticket.hope = Hope(now, scored[0][0].id, tuple(scored[0][1]))
        self._hope(entry, scored, now)

    def left(self, ticket: Ticket) -> None:
        self._intents.drop(ticket)
        self._prices.left(ticket, self._now)

    def moved(self, server: ServerState) -> None:
        if not server.usable or self._index.servers.get(server.id) is not server:
            self._intents.void(self._intents.at(server.id))
        elif len(self._intents) < len(self._queue):  # somebody saw no server that could serve him
            for line in self._lines_for(server):
                self._intents.void(entry for entry in line.entries if self._intents.of(entry[2]) is None)

    def due(self, now: float) -> Iterable[Proposal]:
        """Who is ahead in the line of one that is due is asked too: a line that grows earns its load sooner."""
        for entry in self._intents.due(now, _AT_ONCE):
            if (proposal := self._ask(entry, now)) is not None:
                yield proposal
            line = self._queue.line_of(entry[2])  # none if it was served just now
            ahead = line.head() if line is not None and line.head()[1] != entry[1] else None
            if ahead is not None and (proposal := self._ask(ahead, now)) is not None:
                yield proposal

    @property
    def next_due(self) -> float:
        return self._intents.next_due

    def intent_of(self, ticket: Ticket) -> Intent | None:
        """What a ticket in line hopes for; None if it sees no server that could serve it."""
        return self._intents.of(ticket)

    # ---- one ticket

    def _ask(self, entry: Entry, now: float, also: ServerState | None = None) -> Proposal | None:
        """What a ticket that waits would choose now: a server that is ready, or to go on waiting.

        `also`: the server on whose behalf it is asked, which has to be among those it looks at.
        """
        line = self._queue.line_of(entry[2])
        scored, goes = self._wish(entry, now, also, last=line is not None and line.entries[-1] is entry)
        if goes:
            return entry[2], goes
        self._hope(entry, scored, now)
        return None

    def _wish(
        self, entry: Entry, now: float, also: ServerState | None = None, *, last: bool
    ) -> tuple[list[Scored], list[Scored]]:
        """All servers it may look at, the cheapest first; and the same with the one it goes to first, if it goes."""
        self._now = now
        scored = self._plan(entry, now, also)
        self._looked = (entry[1], now), scored
        if scored and self._goes(entry[2], scored, now):
            goes = self._among_equals(entry[2], scored, now)
        else:
            goes = self._bought(entry[2], scored, now) if last and len(scored) > 1 else []
        if goes and goes[0][1][self._prices.load] < 0.0:
            self._prices.rents.spent(entry[2].kind)
        return scored, goes

    def _among_equals(self, ticket: Ticket, scored: list[Scored], now: float) -> list[Scored]:
        """The same, but where prices cannot tell which of those that can begin at once is best, that is asked for."""
        ticket.fallback = False
        if not self._prices.doubtful:
            return scored
        wait, load = self._prices.wait, self._prices.load
        equals = [each for each in scored if not each[1][wait] and not each[1][load] and self._ready(each[0], ticket)]
        best = self._prices.fallback(ticket, equals, now) if len(equals) > 1 and equals[0] is scored[0] else None
        ticket.fallback = best is not None
        return scored if best is None else [best, *(each for each in scored if each is not best)]

    def _bought(self, ticket: Ticket, scored: list[Scored], now: float) -> list[Scored]:
        """The same with a load first that the line has saved up for; empty if there is none.

        Only where the ticket would rather be, were the model loaded there.
        """
        saved, _ = self._prices.rents.saved(ticket.kind, now)
        prices, hoped = self._prices, sum(scored[0][1])
        best, least = None, saved / _WORTH
        for each in scored:
            server, parts = each
            price = -parts[prices.load] - parts[prices.harm]
            wanted = parts[prices.load] < 0.0 and price < least and sum(parts) + price > hoped
            ready = wanted and parts[prices.wait] == 0.0 and self._ready(server, ticket)
            if ready and prices.spares(ticket, server, now):
                best, least = each, price
        return [] if best is None else [best, *(each for each in scored if each is not best)]

    def _somebody_goes(self, now: float) -> bool:
        """Whether the first of a line waits only for the fleet-wide cap: its news may still be on its way."""
        heads = [line.head() for line in self._queue.lines()]
        return any((scored := self._plan(head, now)) and self._goes(head[2], scored, now) for head in heads)

    def _plan(self, entry: Entry, now: float, also: ServerState | None = None) -> list[Scored]:
        """Every server that is worth a look, with its price; the cheapest first.

        A look at one that has to load costs ten times as much as the least that it may cost. So those come last, and
        only as far as they may be cheaper than what was found, or than what has been saved up for another home; unless
        there are few of them.
        """
        ticket, prices = entry[2], self._prices
        candidates = self._candidates(ticket, also)
        bounds = sorted((prices.least(ticket, server, now), at) for at, server in enumerate(candidates))
        scored: list[Scored] = []
        best, ready, busy, saved = inf, 0, 0, prices.rents.saved(ticket.kind, now)[0] / _WORTH
        for bound, at in bounds:
            server = candidates[at]
            free = self._ready(server, ticket)
            dull = (ready if free else busy) >= _ENOUGH or bound > max(best, saved)
            if dull and server is not also and len(candidates) > _FEW:
                continue
            parts = prices.price(ticket, server, self._ahead(server, entry), now)
            scored.append((server, parts))
            best = min(best, -sum(parts))
            ready, busy = ready + free, busy + (not free)
        return put_winner_first(scored, self._chance) if scored else []

    def _ahead(self, server: ServerState, entry: Entry) -> Ahead:
        """Who goes before on this server; those whose model has a gate that admits nobody now hold nobody up.

        Nobody does before one for whom the pair is kept: each would wait for the other.
        """
        if entry[2].alone:
            return NOBODY
        gates = server.gates
        return self._intents.ahead(server.id, entry, lambda model: model not in gates or gates[model].admits)

    def _candidates(self, ticket: Ticket, also: ServerState | None) -> Sequence[ServerState]:
        """Those that have the model loaded first, but a quarter is kept for who is ready: they may all be busy."""
        if ticket.pinned:
            server = self._index.servers.get(ticket.pinned)
            return [server] if server is not None and server.usable else []
        if ticket.alone and (idle := quiet(self._index, ticket, self._most, self._chance)):
            return idle
        found = self._index.acceptable(ticket.model, ticket.excluded, self._most, self._chance)
        if len(found) >= self._most:
            ready = [each for each in self._all_ready(ticket, max(1, self._most // 4)) if each not in found]
            found[len(found) - len(ready) :] = ready
        if also is not None and also not in found:
            found.append(also)
        return found

    def _all_ready(self, ticket: Ticket, most: int) -> list[ServerState]:
        if ticket.pinned:
            server = self._index.servers.get(ticket.pinned)
            return [server] if server is not None and self._ready(server, ticket) else []
        if ticket.alone:
            return quiet(self._index, ticket, most, self._chance)
        return self._index.draw(ticket.model, most, self._chance, ticket.excluded)

    def _goes(self, ticket: Ticket, scored: list[Scored], now: float) -> bool:
        """Whether the cheapest server is ready, nobody is ahead there, and what others lose by it has been earned."""
        server, parts = scored[0]
        if parts[self._prices.wait] < 0.0 or not self._ready(server, ticket):
            return False
        harm = -parts[self._prices.harm]
        return harm <= 0.0 or harm <= self._prices.rents.saved(ticket.kind, now)[0]

    def _ready(self, server: ServerState, ticket: Ticket) -> bool:
        if ticket.pinned:
            return server.ready_pinned(ticket.model)
        model, alone = ticket.model, ticket.alone
        if model not in server.cooling or server.ready(model):
            return server.ready_alone(model) if alone else server.ready(model)
        ready = server.ready_alone(model) if alone else server.spare_ready(model)
        return ready and self._index.needs_spares(model, ticket.excluded)

    def _hope(self, entry: Entry, scored: list[Scored], now: float) -> None:
        """Stay in line, with the cheapest server in mind; who sees none is asked again when the servers change."""
        ticket = entry[2]
        if not scored:
            self._intents.drop(ticket)
            return
        server, parts = scored[0]
        wait = -parts[self._prices.wait]
        again = _PATIENCE * wait
        earned, growth = self._prices.rents.saved(ticket.kind, now)
        if (missing := -parts[self._prices.harm] - earned) > 0.0:
            again = min(again, missing / max(1, growth)) if wait > 0.0 else missing / max(1, growth)
        elif wait > 0.0:
            self._prices.claim(ticket, server, wait, now)
        again = min(max(again, _SOONEST), _LATEST)
        self._intents.form(entry, server.id, now - sum(parts), now + again)

    # ---- one server

    def _bidders(self, server: ServerState, now: float) -> list[Entry]:
        """Who may want a free slot of this server, in order of rank: few, however many wait."""
        bidders = self._intents.first(server.id, _NEXT, lambda entry: self._may_begin(server, entry[2]))
        lines = (line for line in self._lines_for(server) if self._may_begin(server, line.head()[2]))
        for line in islice(lines, _LINES):
            bidders.extend(self._challenger(line, server, now))
        return sorted(set(bidders))[:_BIDDERS]

    def _may_begin(self, server: ServerState, ticket: Ticket) -> bool:
        """Whether a ticket could begin there now, as far as can be seen without working out what it costs."""
        return self._prices.has_room(ticket, server) and self._ready(server, ticket)

    def _lines_for(self, server: ServerState) -> Iterator[TicketLine]:
        """The lines of those who accept this server."""
        if (pinned := self._queue.pinned_to(server.id)) is not None:
            yield pinned
        for model in shared_models(self._queue, self._index, server):
            for line in self._queue.lines_of(model):
                if server.id not in line.terms.excluded:
                    yield line

    def _challenger(self, line: TicketLine, server: ServerState, now: float) -> Iterator[Entry]:
        """The first in line who would be done earlier on this server than where he hopes to be; nobody, perhaps.

        What the server would cost is asked once, for the last in line, who hopes for the least.
        """
        last = line.entries[-1]
        left = self._left(last, now)
        here = -sum(self._prices.price(last[2], server, NOBODY, now))
        if here + _BETTER * (1.0 + here) < left:
            yield line.entries[
                bisect_right(line.entries, here + _BETTER * (1.0 + here), key=lambda entry: self._left(entry, now))
            ]

    def _left(self, entry: Entry, now: float) -> float:
        """Seconds until the ticket hopes to be done; without end for who hopes for nothing."""
        intent = self._intents.of(entry[2])
        return intent.done_at - now if intent is not None else float("inf")
