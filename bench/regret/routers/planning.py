"""What the policy by expected completion is told in simulated time; the fleet does not run it yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.regret.demand import VisibleRequest
from bench.regret.router import Ending
from fleet.breakers.outcomes import ClientLeft, Completed, Refused, is_death
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.choice.loaded_runners import Wish
from fleet.scheduling.estimates.affinity.prompt_links import PromptLink
from fleet.scheduling.estimates.evictions import Resident
from fleet.scheduling.estimates.forecast.terms import Outcome
from fleet.scheduling.scheduler.decisions import Grant
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Ticket
from fleet.simulator import Stats
from fleet.simulator.text import CHARS_PER_TOKEN

CANDIDATE: Final = "expected_completion"
_NANO: Final = 1e9
_KEPT: Final = 300.0
"""Seconds for which a model is held to stay loaded, since `Sighting` tells no end."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer said of itself, in seconds and tokens."""

    prompt_tokens: int | None
    output_tokens: int | None
    load_seconds: float | None
    prompt_seconds: float | None
    output_seconds: float | None
    total_seconds: float | None

    @classmethod
    def of(cls, stats: Stats) -> Told:
        times = (stats.load, stats.prompt_eval, stats.eval, stats.total)
        return cls(stats.prompt_tokens, stats.tokens, *(each / _NANO for each in times))


class Planning:
    """Hands what happens on to the policy, in the policy's words."""

    def __init__(self) -> None:
        self.policy = ExpectedCompletion()

    def arrived(self, ticket: Ticket, request: VisibleRequest, now: float) -> None:
        asker = (request.client, ticket.model, "/api/chat")
        links = [PromptLink(digest, tokens * CHARS_PER_TOKEN) for digest, tokens in request.links]
        estimates, size = self.policy.estimates, request.body_bytes
        self.policy.arrived(
            ticket, estimates.profile(asker, size, now, links=links, options=Wish(request.num_ctx)), now
        )

    def sent(self, ticket: Ticket, grant: Grant, now: float) -> None:
        self.policy.sent(ticket, grant.number, grant.server, now)

    def spoke(self, grant: Grant, request: VisibleRequest, now: float) -> None:
        self.policy.spoke(grant.number, grant.server, grant.model, Wish(request.num_ctx), now)

    def ended(self, grant: Grant, ending: Ending, now: float) -> None:
        outcome: Outcome = "failed"
        if isinstance(ending.end, Completed):
            outcome = "well"
        elif isinstance(ending.end, ClientLeft):
            outcome = "left"
        elif isinstance(ending.end, Refused) and ending.end.busy:
            outcome = "busy"
        self.policy.ended(grant.number, Told.of(ending.stats) if ending.stats is not None else None, now, outcome)
        if is_death(ending.end):
            self.policy.unloaded(grant.server, grant.model, now)

    def probed(self, state: ServerState, now: float) -> None:
        """Memory by the size of files; the longest loaded goes first, as far as anybody can tell."""
        sizes = {model: row.get("size") for model, row in state.models.items()}
        rows = enumerate(state.resident)
        residents = [Resident(model, float(str(sizes.get(model) or 0)), now + _KEPT + at) for at, model in rows]
        self.policy.shown(state, residents, now)
