"""Snapshots for people: why requests went where they went, what was predicted then, and what came. Never a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from actors.kit.clock import Clock
from actors.state.scheduler_state import SchedulerState
from fleet.common.ids import ModelName, RequestId, ServerId
from fleet.scheduling.choice.balancing import Parts
from fleet.scheduling.choice.expected_completion import ExpectedCompletion, seconds_of
from fleet.scheduling.estimates.forecast.terms import Outcome
from fleet.scheduling.scheduler.decisions import AttemptEnd, Decision

_MOMENT: Final = 0.001
"""Seconds: who waited less did not wait."""


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One server that was looked at. `score`: the largest wins; None, and no terms, if there was nothing to compare.

    `terms`: by name; seconds with a policy that plans, else what the parts of its score are.
    """

    server: ServerId
    score: float | None
    terms: dict[str, float]


@dataclass(frozen=True, slots=True)
class SpanView:
    """Where the time of a request went, or was to go. Seconds; None: nobody said. `done` is without the wait."""

    wait: float | None
    load: float | None
    prefill: float | None
    decode: float | None
    done: float | None
    first_token: float | None
    """Since the grant."""


@dataclass(frozen=True, slots=True)
class DecisionView:
    """One decision. `at` is epoch seconds, `waited` seconds; `hoped`: for which server it stood in line, as it began.

    `predicted` is there with a policy that plans; `came` too, when the attempt has ended, with its `outcome`.
    """

    at: float
    request_id: RequestId
    model: ModelName
    policy: str
    chosen: ServerId
    waited: float
    why: str
    margin: float | None
    candidates: tuple[CandidateView, ...]
    hoped: ServerId | None = None
    predicted: SpanView | None = None
    came: SpanView | None = None
    outcome: Outcome | None = None


def decision_views(
    clock: Clock,
    scheduler: SchedulerState,
    *,
    server: ServerId | None = None,
    model: ModelName | None = None,
    request: RequestId | None = None,
) -> Iterator[DecisionView]:
    """The last decisions, the newest first; only those of a server, a model or a request. O(what the ring holds)."""
    for decision in reversed(tuple(scheduler.memory.decisions)):
        of_pair = server in (None, decision.chosen) and model in (None, decision.model)
        if of_pair and request in (None, decision.request_id):
            yield _view(decision, clock.epoch(decision.at))


def _view(decision: Decision, at: float) -> DecisionView:
    plans = decision.policy == ExpectedCompletion.name
    hope, end, own = decision.hope, decision.end, decision.scored[0][1]
    scores = [sum(parts) for _, parts in decision.scored]
    return DecisionView(
        at=at,
        request_id=decision.request_id,
        model=decision.model,
        policy=decision.policy,
        chosen=decision.chosen,
        waited=decision.waited,
        why=_why(decision, plans=plans),
        margin=scores[0] - max(scores[1:]) if len(scores) > 1 else None,
        candidates=tuple(
            CandidateView(server, sum(parts) if parts else None, _terms(decision, parts, plans=plans))
            for server, parts in decision.candidates
        ),
        hoped=None if hope is None else hope.server,
        predicted=_predicted(own, decision) if plans and own else None,
        came=None if end is None else _came(decision, end),
        outcome=None if end is None else end.outcome,
    )


def _terms(decision: Decision, parts: Parts, *, plans: bool) -> dict[str, float]:
    return seconds_of(parts) if plans and parts else dict(zip(decision.parts, parts, strict=False))


def _predicted(own: Parts, decision: Decision) -> SpanView:
    """As it was when it was sent; the wait, as it was when it entered its line."""
    terms, hope = seconds_of(own), decision.hope
    wait = terms["wait"] if hope is None else seconds_of(hope.parts)["wait"]
    first = terms["load"] + terms["prefill"]
    done = first + terms["decode"]
    return SpanView(wait, terms["load"], terms["prefill"], terms["decode"], done, first)


def _came(decision: Decision, end: AttemptEnd) -> SpanView:
    told = end.told
    spans = (None, None, None) if told is None else (told.load_seconds, told.prompt_seconds, told.output_seconds)
    return SpanView(decision.waited, *spans, end.total, end.first_byte)


def _why(decision: Decision, *, plans: bool) -> str:
    """In a sentence."""
    hope, chosen, number = decision.hope, decision.chosen, len(decision.scored)
    if not plans or hope is None:
        if decision.waited >= _MOMENT:
            return "waited until a server could take it"
        if decision.fallback:
            return "the least to do (LMetric) among warm servers: predictions for one of them are not to be trusted"
        return "the only server that could take it" if number == 1 else f"the best of {number} servers"
    terms = seconds_of(hope.parts)
    if terms["wait"] <= 0.0 and terms["eviction"] > 0.0:
        waited = f"waited to earn a load on {hope.server}, which throws out what others use"
    else:
        waited = f"waited for {hope.server}, which was to take it after {terms['wait']:.1f} s and still cost the least"
    if chosen == hope.server:
        return waited
    if decision.fallback:
        return f"{waited}; went to {chosen} by LMetric: predictions are not to be trusted"
    load = seconds_of(decision.scored[0][1])["load"]
    moved = "a load there was bought by those in line" if load > 0.0 else "it was better off there by then"
    return f"{waited}; went to {chosen}: {moved}"
