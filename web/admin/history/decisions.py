"""Where requests went, as far as it is remembered: the reference's views of the last decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Annotated, Final

from actors.system import System
from fleet.common.model_names import canonical
from fleet.common.times import milliseconds
from fleet.history.decisions import effects, parts_of, position_of, selections
from fleet.scheduling.scheduler.decisions import Decision
from web.admin.history import asked as past
from web.admin.kit.answers import EPOCH_MS, MS, SHARE, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("decisions", "Where requests went, and what that depended on.")

_INTERVAL: Final = Param("interval_minutes", int, 15, "How far apart points are.", 1, 1_440)
_SCORE = Annotated[float, "of 100 with the weighted policy; else in the policy's own measure, the largest wins"]
REMEMBERED = Annotated[int, "decisions that were looked at: the last ones (`load_balancer.decisions`)"]


class ScoredServerJson(JsonObject, kw_only=True):
    """A server that was looked at."""

    server_id: str
    total_score: Annotated[float | None, "null: it was alone, and compared with nobody"]
    breakdown: Annotated[dict[str, float], "by part: the parts add up to the score"]


class DecisionEventJson(JsonObject, kw_only=True):
    """One decision; a request has one for each attempt."""

    timestamp: EPOCH_MS
    request_id: str
    model: str
    selected_server_id: str
    algorithm: str
    waited: MS
    margin: Annotated[float | None, "by how much its score was above the next; below 0: it was chosen all the same"]
    candidates: Annotated[list[ScoredServerJson], "the chosen one first"]
    selection_reason: Annotated[str, "single_candidate, or load_balancer"]


class DecisionEventsAnswer(Answer, kw_only=True):
    """The last decisions, the newest first."""

    count: int
    events: list[DecisionEventJson]


class PairTrendJson(JsonObject, kw_only=True):
    """The scores of a server whenever it was looked at for the model, the oldest first. Lists are side by side."""

    timestamps: list[EPOCH_MS]
    scores: list[_SCORE]
    latency_scores: Annotated[list[float], "empty unless the policy has such a part, like the next three"]
    success_rate_scores: list[float]
    load_scores: list[float]
    capacity_scores: list[float]
    parts: Annotated[dict[str, list[float]], "all of them, by name"]
    selection_count: int
    avg_position: Annotated[float | None, "by score, from 1"]


class PairTrendAnswer(Answer, kw_only=True):
    """How a server scored for a model."""

    server_id: str
    model: str
    hours: int
    remembered: REMEMBERED
    trend: PairTrendJson


class SelectionsJson(JsonObject, kw_only=True):
    """One server."""

    server_id: str
    total_selections: int
    by_model: dict[str, int]
    avg_score: Annotated[float | None, "where it was compared with others"]


class SelectionStatsAnswer(Answer, kw_only=True):
    """How often servers were chosen, the most frequent first."""

    hours: int
    remembered: REMEMBERED
    stats: list[SelectionsJson]


class AlgorithmJson(JsonObject, kw_only=True):
    """One policy."""

    count: int
    percentage: Annotated[float, "0 to 100"]


class AlgorithmsAnswer(Answer, kw_only=True):
    """Which policies decided."""

    hours: int
    remembered: REMEMBERED
    algorithms: dict[str, AlgorithmJson]


class ScorePointJson(JsonObject, kw_only=True):
    """Scores of all candidates of an interval."""

    timestamp: Annotated[EPOCH_MS, "where it begins"]
    avg_score: _SCORE
    min_score: float
    max_score: float
    server_count: Annotated[int, "servers among the candidates"]


class ScoreTimelineAnswer(Answer, kw_only=True):
    """Scores over time. An interval without decisions between servers has no point."""

    hours: int
    interval_minutes: int
    remembered: REMEMBERED
    data_points: list[ScorePointJson]


class PartImpactJson(JsonObject, kw_only=True):
    """What a part of the score did."""

    correlation: Annotated[
        float | None, "with being chosen, -1 to 1; null if it never varied, or of under 20 candidates"
    ]
    weight: Annotated[SHARE | None, "of all weights; null for policies without"]
    changed: Annotated[int, "decisions in which another server would have been first without it"]
    compared: Annotated[int, "decisions between several servers"]


class MetricsImpactAnswer(Answer, kw_only=True):
    """What each part of the score changed: the same candidates are scored again without it."""

    hours: int
    remembered: REMEMBERED
    impact: dict[str, PartImpactJson]


@topic.get(
    "/analytics/decisions",
    "The last decisions, the newest first.",
    seed=True,
    query=(Param("limit", int, 100, "Most decisions of the answer.", 1, 1_000), past.SERVER, past.MODEL, past.HOURS),
)
async def decisions(asked: AdminRequest) -> DecisionEventsAnswer:
    server, limit = asked.query["server_id"], asked.query["limit"]
    found = [each for each in reversed(_remembered(asked)) if server in (None, each.chosen)]
    events = [_event(asked.system, each) for each in found[:limit]]
    return DecisionEventsAnswer(count=len(events), events=events)


@topic.get(
    "/analytics/decisions/trends/<server_id>/<path:model>",
    "How a server scored for a model.",
    seed=True,
    query=(past.HOURS,),
)
async def decision_trend(asked: AdminRequest, server_id: str, model: str) -> PairTrendAnswer:
    found = _remembered(asked, model)
    seen = [each for each in found if parts_of(each, server_id)]
    parts: dict[str, list[float]] = {}
    for each in seen:
        for name, value in zip(each.parts, parts_of(each, server_id), strict=False):
            parts.setdefault(name, []).append(_shown(asked.system, each, value))
    positions = [place for each in seen if (place := position_of(each, server_id)) is not None]
    trend = PairTrendJson(
        timestamps=[_when(asked.system, each) for each in seen],
        scores=[_shown(asked.system, each, sum(parts_of(each, server_id))) for each in seen],
        latency_scores=parts.get("latency", []),
        success_rate_scores=parts.get("success_rate", []),
        load_scores=parts.get("load", []),
        capacity_scores=parts.get("capacity", []),
        parts=parts,
        selection_count=sum(each.chosen == server_id for each in found),
        avg_position=round(mean(positions), 2) if positions else None,
    )
    hours = asked.query["hours"]
    return PairTrendAnswer(server_id=server_id, model=canonical(model), hours=hours, remembered=len(found), trend=trend)


@topic.get("/analytics/selection-stats", "How often servers were chosen.", seed=True, query=(past.HOURS, past.MODEL))
async def selection_stats(asked: AdminRequest) -> SelectionStatsAnswer:
    found = _remembered(asked)
    scale = _scale(asked.system, found)
    stats = [
        SelectionsJson(
            server_id=server,
            total_selections=each.total,
            by_model=each.by_model,
            avg_score=round(scale * mean(each.scores), 2) if each.scores else None,
        )
        for server, each in sorted(selections(found).items(), key=lambda each: (-each[1].total, each[0]))
    ]
    return SelectionStatsAnswer(hours=asked.query["hours"], remembered=len(found), stats=stats)


@topic.get("/analytics/algorithms", "Which policies decided.", seed=True, query=(past.HOURS, past.MODEL))
async def algorithms(asked: AdminRequest) -> AlgorithmsAnswer:
    found = _remembered(asked)
    counts = Counter(each.policy for each in found)
    shown = {
        policy: AlgorithmJson(count=count, percentage=round(100.0 * count / len(found), 2))
        for policy, count in counts.most_common()
    }
    return AlgorithmsAnswer(hours=asked.query["hours"], remembered=len(found), algorithms=shown)


@topic.get(
    "/analytics/score-timeline",
    "Scores of servers over time.",
    seed=True,
    query=(past.HOURS, past.MODEL, past.SERVER, _INTERVAL),
)
async def score_timeline(asked: AdminRequest) -> ScoreTimelineAnswer:
    server, step = asked.query["server_id"], 60 * asked.query["interval_minutes"]
    found = _remembered(asked)
    scores: dict[int, list[float]] = {}
    servers: dict[int, set[str]] = {}
    for each in found:
        bucket = int(asked.system.clock.epoch(each.at)) // step * step
        for name, parts in each.candidates:
            if parts and server in (None, name):
                scores.setdefault(bucket, []).append(_shown(asked.system, each, sum(parts)))
                servers.setdefault(bucket, set()).add(name)
    points = [
        ScorePointJson(
            timestamp=milliseconds(bucket),
            avg_score=round(mean(values), 2),
            min_score=min(values),
            max_score=max(values),
            server_count=len(servers[bucket]),
        )
        for bucket, values in sorted(scores.items())
    ]
    return ScoreTimelineAnswer(
        hours=asked.query["hours"], interval_minutes=step // 60, remembered=len(found), data_points=points
    )


@topic.get(
    "/analytics/metrics-impact",
    "What each part of the score changed, by scoring the same candidates again without it.",
    seed=True,
    query=(past.HOURS, past.MODEL),
)
async def metrics_impact(asked: AdminRequest) -> MetricsImpactAnswer:
    found = _remembered(asked)
    latest = [each for each in found if each.policy == found[-1].policy]
    weights = asked.system.config.load_balancer.weights.model_dump() if _weighted(found) else {}
    total = sum(weights.values())
    impact = {
        name: PartImpactJson(
            correlation=None if (told := each.correlation) is None else round(told, 3),
            weight=round(weights[name] / total, 4) if name in weights else None,
            changed=each.changed,
            compared=each.compared,
        )
        for name, each in effects(latest).items()
    }
    return MetricsImpactAnswer(hours=asked.query["hours"], remembered=len(latest), impact=impact)


def _remembered(asked: AdminRequest, model: str | None = None) -> list[Decision]:
    """The decisions of the last hours, the oldest first."""
    model = model or asked.query.get("model")
    wanted = None if model is None else canonical(model)
    since = asked.system.clock.now() - 3600.0 * asked.query["hours"]
    return [
        each for each in asked.system.scheduler.memory.decisions if each.at >= since and wanted in (None, each.model)
    ]


def _weighted(found: Sequence[Decision]) -> bool:
    return bool(found) and found[-1].policy == "weighted"


def _scale(system: System, found: Sequence[Decision]) -> float:
    """What makes a score one of 100: with the weights that are in effect now."""
    total = sum(system.config.load_balancer.weights.model_dump().values())
    return 100.0 / total if _weighted(found) else 1.0


def _shown(system: System, decision: Decision, value: float) -> float:
    return round(_scale(system, (decision,)) * value, 2)


def _when(system: System, decision: Decision) -> int:
    return milliseconds(system.clock.epoch(decision.at))


def _event(system: System, decision: Decision) -> DecisionEventJson:
    scores = [sum(parts) for _, parts in decision.candidates]
    scored = [
        ScoredServerJson(
            server_id=server,
            total_score=_shown(system, decision, sum(parts)) if parts else None,
            breakdown={name: _shown(system, decision, part) for name, part in zip(decision.parts, parts, strict=False)},
        )
        for server, parts in decision.candidates
    ]
    return DecisionEventJson(
        timestamp=_when(system, decision),
        request_id=decision.request_id,
        model=decision.model,
        selected_server_id=decision.chosen,
        algorithm=decision.policy,
        waited=milliseconds(decision.waited),
        margin=_shown(system, decision, scores[0] - max(scores[1:])) if len(scores) > 1 else None,
        candidates=scored,
        selection_reason="load_balancer" if len(scores) > 1 else "single_candidate",
    )
