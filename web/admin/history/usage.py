"""Who used how much: requests, tokens and time of slots, by client, model, server, endpoint and day."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Final

from quart import Response

from fleet.common.errors import BadRequest
from fleet.common.times import iso_seconds
from fleet.history.figures import RequestFigures
from web.admin.history import asked as past
from web.admin.history.asked import RangeJson
from web.admin.kit.answers import Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http import responses

topic = RouteGroup("usage", "Who used how much.")

MOST: Final = 10_000
DAY: Final = 86_400
_KINDS: Final = ("client", "model", "server", "endpoint")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula: names of models are the clients' to choose."""


class UsageJson(JsonObject, kw_only=True):
    """What one combination used. Names and days that were not asked for are null."""

    day: Annotated[str | None, "of UTC: 2026-12-01"]
    client: str | None
    model: str | None
    server: str | None
    endpoint: str | None
    requests: int
    errors: int
    attempts: int
    tokens_prompt: int
    tokens_generated: int
    slot_seconds: Annotated[float, "for which slots were held"]
    wasted_seconds: Annotated[float, "of those, what gave nobody an answer"]
    load_seconds: Annotated[float, "spent on loading models for them"]
    cold_requests: Annotated[int, "that waited for a load"]


class UsageAnswer(Answer, kw_only=True):
    """Usage, the largest first within each day."""

    time_range: str
    range: RangeJson
    group_by: list[str]
    count: int
    usage: list[UsageJson]
    truncated: Annotated[bool, "whether there is more than is shown"]


@topic.get(
    "/analytics/usage",
    "Requests, tokens and time of slots, by client, model, server, endpoint, day; as JSON or CSV.",
    fails=past.UNAVAILABLE,
    query=(
        Param("group_by", str, "client", "Any of client, model, server, endpoint, day, with commas between them."),
        Param("format", str, "json", "How it is answered.", words=("json", "csv")),
        past.SERVER,
        past.MODEL,
        past.CLIENT,
        past.ENDPOINT,
        *past.ranges("30d"),
    ),
)
async def usage(asked: AdminRequest) -> UsageAnswer | Response:
    within, kinds = past.range_of(asked), _kinds(asked.query["group_by"])
    by = [kind for kind in _KINDS if kind in kinds]
    step = DAY if "day" in kinds else None
    groups = await past.sums(asked, within, *by, step=step, sketches=())
    found: dict[tuple[int, tuple[str, ...]], RequestFigures] = {}
    for group in groups:
        found.setdefault((group.bucket, group.names[:-1]), RequestFigures()).add(group.names[-1], group.sums)
    ordered = sorted(found.items(), key=lambda each: (each[0][0], -each[1].requests, each[0][1]))
    lines = [
        _line(bucket if step else None, dict(zip(by, names, strict=True)), each)
        for (bucket, names), each in ordered[:MOST]
    ]
    if asked.query["format"] == "csv":
        return _csv(lines)
    return UsageAnswer(
        time_range=within.text,
        range=within.shown,
        group_by=kinds,
        count=len(lines),
        usage=lines,
        truncated=len(ordered) > MOST,
    )


def _kinds(text: str) -> list[str]:
    kinds = [part.strip() for part in text.split(",") if part.strip()]
    if not set(kinds) <= {*_KINDS, "day"}:
        raise BadRequest("groupBy must be of client, model, server, endpoint, day, with commas between them")
    return list(dict.fromkeys(kinds))


def _line(day: int | None, names: dict[str, str], each: RequestFigures) -> UsageJson:
    sums = each.sums
    return UsageJson(
        day=None if day is None else iso_seconds(day)[:10],
        client=names.get("client"),
        model=names.get("model"),
        server=names.get("server"),
        endpoint=names.get("endpoint"),
        requests=each.requests,
        errors=each.errors,
        attempts=sums.attempts,
        tokens_prompt=sums.prompt_tokens,
        tokens_generated=sums.output_tokens,
        slot_seconds=round(sums.slot, 3),
        wasted_seconds=round(sums.wasted, 3),
        load_seconds=round(sums.load, 3),
        cold_requests=sums.cold,
    )


def _csv(lines: Iterable[UsageJson]) -> Response:
    """As RFC 4180 has it, with a line of names; no cell begins like a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    fields = UsageJson.__struct_fields__
    writer.writerow(UsageJson.__struct_encode_fields__)
    for line in lines:
        writer.writerow([_cell(getattr(line, name)) for name in fields])
    answer = responses.raw(out.getvalue().encode(), "text/csv; charset=utf-8")
    answer.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
    return answer


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
