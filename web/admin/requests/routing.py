"""Why requests went where they went, and what predictions are worth."""

from __future__ import annotations

from itertools import islice
from math import exp
from typing import Annotated, Final

from actors.state.decision_views import CandidateView, DecisionView, SpanView
from fleet.common.ids import Pair, RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.common.times import milliseconds
from fleet.scheduling.estimates.forecast.terms import Outcome
from web.admin.kit.answers import EPOCH_MS, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http.units import take_turns

topic = RouteGroup("routing", "Why requests went where they went.")

_MOST_UNRELIABLE: Final = 200
_SPAN = Annotated[float | None, "seconds; null: nobody said"]


class CandidateJson(JsonObject, kw_only=True):
    """One server that was looked at, with what its score is made of."""

    server_id: str
    score: Annotated[float | None, "the largest wins; null if there was nothing to compare"]
    terms: Annotated[dict[str, float], "by name; seconds with a policy that plans, where only `bonus` speaks for it"]


class SpansJson(JsonObject, kw_only=True):
    """Where the time goes, or went."""

    wait: Annotated[float | None, "seconds in line"]
    load: _SPAN
    prefill: _SPAN
    decode: _SPAN
    first_token: Annotated[float | None, "seconds since it got its slot"]
    done: Annotated[float | None, "seconds since it got its slot"]


class DecisionJson(JsonObject, kw_only=True):
    """One decision; a request has one for each attempt."""

    at: EPOCH_MS
    request_id: str
    model: str
    policy: str
    server_id: str
    waited: Annotated[float, "seconds"]
    why: Annotated[str, "in a sentence"]
    margin: Annotated[float | None, "by how much its score was above the next; below 0: it was chosen all the same"]
    hoped_for: Annotated[str | None, "the server that it stood in line for, as it began to"]
    candidates: Annotated[list[CandidateJson], "the chosen one first"]
    predicted: Annotated[SpansJson | None, "when it got its slot; the wait: when it entered its line"]
    came: Annotated[SpansJson | None, "null: it is open, or the policy does not plan"]
    outcome: Annotated[Outcome | None, "of the attempt"]


class DecisionsAnswer(Answer, kw_only=True):
    """The last decisions."""

    count: int
    kept: Annotated[int, "as many as are remembered (`load_balancer.decisions`)"]
    decisions: list[DecisionJson]


@topic.get(
    "/routing/decisions",
    "The last decisions, the newest first: every candidate's terms, why it waited, what was predicted, what came.",
    query=(
        Param("limit", int, 50, "decisions listed", least=1, most=1000),
        Param("serverId", str, None, "only those for this server"),
        Param("model", str, None, "only of this model"),
        Param("requestId", str, None, "only of this request"),
    ),
)
async def decisions(asked: AdminRequest) -> DecisionsAnswer:
    wanted = asked.query
    views = asked.system.queries.decisions(
        server=ServerId(wanted["serverId"]) if wanted["serverId"] else None,
        model=canonical(wanted["model"]) if wanted["model"] else None,
        request=RequestId(wanted["requestId"]) if wanted["requestId"] else None,
    )
    shown = []
    for number, view in enumerate(islice(views, wanted["limit"])):
        shown.append(_decision(view))
        await take_turns(number)
    kept = asked.system.config.load_balancer.decisions
    return DecisionsAnswer(count=len(shown), kept=kept, decisions=shown)


class TermJson(JsonObject, kw_only=True):
    """One term of all predictions lately; null: it has not been compared yet."""

    term: str
    factor: Annotated[float | None, "what came over what was predicted, the mean of some minutes, 0.5 to 2; 1 is right"]
    error: Annotated[float | None, "by what factor the half of all are off at most, when that is corrected; 1 is exact"]


class UnreliableJson(JsonObject, kw_only=True):
    """A model on a server whose times are not understood."""

    server_id: str
    model: str
    error: Annotated[float | None, "by what factor the half of all are off at most, answers' lengths apart"]


class PredictionsAnswer(Answer, kw_only=True):
    """What predictions are worth."""

    lessons: Annotated[int, "requests that have taught something since the start; 0: the policy does not plan"]
    terms: list[TermJson]
    unreliable: Annotated[list[UnreliableJson], "there, warm servers are chosen by LMetric; 200 at most"]


@topic.get(
    "/routing/predictions",
    "What predictions are worth: by term, and where they are not to be trusted.",
)
async def predictions(asked: AdminRequest) -> PredictionsAnswer:
    estimates, now = asked.system.scheduler.expectations.estimates, asked.system.clock.now()
    terms = []
    for term, accuracy in estimates.errors.accuracy.items():
        error = accuracy.error(now)
        factor = None if error is None else accuracy.factor(now)
        terms.append(TermJson(term=term, factor=_rounded(factor), error=_factor(error)))
    unreliable = []
    for server, model in sorted(islice(estimates.doubted, _MOST_UNRELIABLE)):
        error = estimates.trust.speed_error(Pair(server, model), now)
        unreliable.append(UnreliableJson(server_id=server, model=model, error=_factor(error)))
    return PredictionsAnswer(lessons=estimates.lessons, terms=terms, unreliable=unreliable)


def _decision(view: DecisionView) -> DecisionJson:
    return DecisionJson(
        at=milliseconds(view.at),
        request_id=view.request_id,
        model=view.model,
        policy=view.policy,
        server_id=view.chosen,
        waited=round(view.waited, 4),
        why=view.why,
        margin=_rounded(view.margin),
        hoped_for=view.hoped,
        candidates=[_candidate(each) for each in view.candidates],
        predicted=None if view.predicted is None else _spans(view.predicted),
        came=None if view.came is None else _spans(view.came),
        outcome=view.outcome,
    )


def _candidate(view: CandidateView) -> CandidateJson:
    terms = {name: round(value, 4) for name, value in view.terms.items()}
    return CandidateJson(server_id=view.server, score=_rounded(view.score), terms=terms)


def _spans(view: SpanView) -> SpansJson:
    return SpansJson(
        wait=_rounded(view.wait),
        load=_rounded(view.load),
        prefill=_rounded(view.prefill),
        decode=_rounded(view.decode),
        first_token=_rounded(view.first_token),
        done=_rounded(view.done),
    )


def _factor(error: float | None) -> float | None:
    """Of an error in logarithms."""
    return None if error is None else round(exp(error), 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
