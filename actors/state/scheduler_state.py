"""What outlives a crash of the dispatcher: from this the next incarnation goes on, and nobody who waits is lost."""

from __future__ import annotations

import secrets
from collections.abc import Container
from dataclasses import dataclass, field

from actors.kit.mailbox import Mailbox
from actors.state.messages import DispatcherMail, Reconfigured
from actors.state.ticket import PendingTicket
from fleet.common.ids import ModelName
from fleet.config import Config
from fleet.scheduling.bans import Bans
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.estimates.affinity.prompt_links import PromptLinks
from fleet.scheduling.rates import RetryBudget
from fleet.scheduling.scheduler.decisions import SchedulerMemory
from fleet.scheduling.unserved import Unserved


@dataclass(slots=True, eq=False)
class SchedulerState:
    """Who waits, who is kept away, and what was decided so far. Everything is synchronous.

    Writers: the dispatcher, of the bans, the memory and the expectations; the servers' actors and the leases, of what
    the expectations learn; the exchanges, of their tickets, the numbers and the budget;
    whoever closes a lease gives its slot back to the memory.
    """

    mailbox: Mailbox[DispatcherMail]
    """The dispatcher's."""
    memory: SchedulerMemory
    budget: RetryBudget
    bans: Bans = field(default_factory=Bans)
    tickets: dict[int, PendingTicket] = field(default_factory=dict)
    """Those that nobody has settled, by number."""
    numbers: int = 0
    unserved: Unserved = field(default_factory=Unserved)
    """What clients asked for lately that no server could serve."""
    expectations: ExpectedCompletion = field(default_factory=ExpectedCompletion)
    """What requests are expected to cost where. Told of every request while the policy plans by it."""

    prompt_links: PromptLinks = field(default_factory=lambda: PromptLinks(secrets.token_bytes(32)))
    """Under a key of this process, which is written down nowhere."""

    def follow(self, before: Config, now: Config) -> None:
        """Another configuration: the budget's limits, and whatever the dispatcher has copied."""
        self.budget.ratio, self.budget.floor = now.retry.budget_ratio, now.retry.budget_floor
        self.mailbox.cast(Reconfigured())

    def wanted(self, models: Container[ModelName] | None, now: float) -> bool:
        """Whether clients wait for any of these models (None: any at all), or were refused it lately. O(tickets)."""
        waiting = any(models is None or ticket.model in models for ticket in self.tickets.values())
        return waiting or self.unserved.lately(models, now)

    def next_number(self) -> int:
        """A number that no ticket of this process has had."""
        self.numbers += 1
        return self.numbers
