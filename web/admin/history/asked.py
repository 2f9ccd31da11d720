"""What routes about the past have in common: the range of time, names to look for, and whom to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from actors.storage.history.queries import HistoryQueries
from fleet.common.errors import BadRequest, HistoryOff
from fleet.common.model_names import canonical
from fleet.common.times import milliseconds
from fleet.history.questions import SumsGroup, SumsQuestion
from fleet.history.time_ranges import LONGEST, TimeSpan, aligned, length_of
from web.admin.kit.answers import EPOCH_MS, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest

SINCE: Final = Param("since", str, None, "Instead of timeRange: ISO 8601, or seconds or milliseconds since 1970.")
UNTIL: Final = Param("until", str, None, "The end of the range, likewise; now, if it is not given.")
SERVER: Final = Param("server_id", str, None, "Only requests that this server answered, or was the last to fail.")
MODEL: Final = Param("model", str, None, "Only requests for this model.")
CLIENT: Final = Param("client", str, None, "Only requests of this client, as the history names it.")
ENDPOINT: Final = Param("endpoint", str, None, "Only requests to this endpoint: /api/chat, or chat.")
HOURS: Final = Param("hours", int, 24, "How far back, if neither timeRange nor since is given.", 1, LONGEST // 3600)
UNAVAILABLE: Final = (503,)
"""What a route may fail with when there is no history, or it cannot be read."""
_MILLISECONDS_FROM: Final = 1e11
"""Larger numbers are no seconds since 1970: that would be in the year 5138."""


def time_range(default: str | None) -> Param:
    """How far back a route looks."""
    return Param("time_range", str, default, "How far back: a number with m, h, d or w, as in 1h, 24h, 7d, 30d.")


def ranges(default: str | None) -> tuple[Param, ...]:
    """All that says which time is meant."""
    return time_range(default), SINCE, UNTIL


class RangeJson(JsonObject, kw_only=True):
    """The range that was looked at: that which was asked for, in whole buckets, so it may begin a little earlier."""

    since: EPOCH_MS
    until: EPOCH_MS


@dataclass(frozen=True, slots=True)
class AskedRange:
    """A range of time as it was asked for: exactly, in whole buckets, and in the words of the one who asks."""

    since: float
    until: float
    now: float
    text: str

    @property
    def buckets(self) -> TimeSpan:
        """In whole buckets of sums."""
        return aligned(self.since, self.until, self.now)

    @property
    def seconds(self) -> float:
        """How much of the buckets has been."""
        return max(1.0, min(self.until, self.now) - self.buckets.since)

    @property
    def shown(self) -> RangeJson:
        """What is told of it."""
        buckets = self.buckets
        return RangeJson(since=milliseconds(buckets.since), until=milliseconds(min(buckets.until, self.now)))


def range_of(asked: AdminRequest) -> AskedRange:
    """The range that a call is about. Raises BadRequest."""
    now, query = asked.system.clock.wall(), asked.query
    until = _moment(query.get("until"), "until")
    end = now + 1.0 if until is None else until
    since, text = _moment(query.get("since"), "since"), query.get("time_range")
    if since is None:
        text = text or f"{query.get('hours', 24)}h"
        try:
            since = (now if until is None else until) - length_of(text)
        except ValueError as error:
            raise BadRequest(f"timeRange {error}") from None
    if not since < end:
        raise BadRequest("the range ends before it begins")
    if end - since > LONGEST + 1.0:
        raise BadRequest("the range is longer than five years")
    return AskedRange(since, end, now, text or "custom")


def names_of(asked: AdminRequest, **fixed: str) -> Mapping[str, Sequence[str]]:
    """The names that a call wants, by kind. `fixed`: those of its path."""
    query = asked.query
    wanted = {"server": query.get("server_id"), "model": query.get("model"), "client": query.get("client")} | fixed
    found = {kind: [canonical(name) if kind == "model" else name] for kind, name in wanted.items() if name}
    if endpoint := query.get("endpoint"):
        found["endpoint"] = [endpoint if endpoint.startswith("/") else f"/api/{endpoint}"]
    return found


async def queries_of(asked: AdminRequest) -> HistoryQueries:
    """Whom to ask, who then knows of all that has ended by now. Raises HistoryOff."""
    history = asked.system.history
    if history is None:
        raise HistoryOff("nothing is kept of finished requests", details="set history.enabled, and restart")
    await asked.system.statistics.request_log.catch_up()
    return history.queries


async def sums(
    asked: AdminRequest,
    within: AskedRange,
    *by: str,
    names: Mapping[str, Sequence[str]] | None = None,
    step: int | None = None,
    sketches: Sequence[str] = ("totals",),
) -> list[SumsGroup]:
    """Sums of a range by these names and, last of all, by outcome. Raises HistoryOff, HistoryUnavailable."""
    wanted = SumsQuestion(
        span=within.buckets, by=(*by, "outcome"), names=names or names_of(asked), step=step, sketches=sketches
    )
    return await (await queries_of(asked)).sums(wanted)


def _moment(text: str | None, name: str) -> float | None:
    """Seconds since 1970. Raises BadRequest."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return _written(text, name)
    if not 0.0 <= number < 1e14:
        raise BadRequest(f"{name} is no moment since 1970")
    return number / 1000.0 if number >= _MILLISECONDS_FROM else number


def _written(text: str, name: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{name} must be ISO 8601, or seconds or milliseconds since 1970") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


MS_OR_NULL = Annotated[int | None, "milliseconds; null under 20 requests"]
MEAN_MS = Annotated[float, "milliseconds from arrival to end, the mean; 0 without requests"]


def mean_ms(seconds: float) -> float:
    """Milliseconds of a mean, as they are shown."""
    return round(seconds * 1000.0, 2)
