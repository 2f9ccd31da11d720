"""The last log records, without a word of any prompt."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from msgspec import UNSET, UnsetType

from fleet.common.errors import BadRequest
from fleet.common.times import iso
from fleet.security.roles import Role
from web.admin.kit.answers import ISO, Answer, JsonObject, MessageAnswer
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.process.log_buffer import BufferedRecord

topic = RouteGroup("logs", "The last log records.")

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_EPOCH_MS = re.compile(r"[0-9]{1,15}")


class LogRecordJson(JsonObject, kw_only=True):
    """One log record."""

    timestamp: ISO
    level: str
    logger: str
    message: str
    request_id: str | None
    meta: Annotated[Mapping[str, object], "the record's fields; absent when it has none"] | UnsetType = UNSET


class LogsAnswer(Answer, kw_only=True):
    """The last that pass."""

    logs: list[LogRecordJson]
    count: Annotated[int, "records listed"]
    total: Annotated[int, "records that are kept, whether they pass the filters or not"]
    dropped: Annotated[int, "older records that had to make room since the last clearing"]


class ClearedAnswer(MessageAnswer, kw_only=True):
    """How many records are gone."""

    removed: int


@topic.get(
    "/logs",
    "The last log records, newest last; every filter given must hold.",
    query=(
        Param("level", str, "debug", "records of this level and above", words=tuple(LEVELS)),
        Param("logger", str, None, "records of this logger and those below it, for example `fleet.dispatcher`"),
        Param("requestId", str, None, "records of this request"),
        Param("since", str, None, "records from this moment on: ISO 8601 (UTC unless it says otherwise) or epoch ms"),
        Param("limit", int, 100, "records listed, the newest", least=1, most=1000),
    ),
    seed=True,
)
async def logs(asked: AdminRequest) -> LogsAnswer:
    kept, dropped = asked.context.logs.snapshot()
    found = _last(kept, asked.query)
    return LogsAnswer(
        logs=[_shown(each) for each in found],
        count=len(found),
        total=len(kept),
        dropped=dropped,
    )


@topic.post(
    "/logs/clear",
    "Forget the log records in memory; what was written elsewhere stays.",
    role=Role.ADMIN,
    action="clear logs",
    seed=True,
)
async def clear(asked: AdminRequest) -> ClearedAnswer:
    return ClearedAnswer(message="Logs cleared", removed=asked.context.logs.clear())


def _last(kept: list[BufferedRecord], query: Mapping[str, Any]) -> list[BufferedRecord]:
    """The newest that pass, oldest first."""
    passing = _passing(reversed(kept), query)
    newest = [each for each, _ in zip(passing, range(query["limit"]), strict=False)]
    return newest[::-1]


def _passing(kept: Iterable[BufferedRecord], query: Mapping[str, Any]) -> Iterator[BufferedRecord]:
    least, logger, request = LEVELS[query["level"]], query["logger"], query["requestId"]
    since = None if query["since"] is None else moment(query["since"])
    for each in kept:
        if each.level < least or (since is not None and each.at < since):
            continue
        if logger is not None and each.logger != logger and not each.logger.startswith(f"{logger}."):
            continue
        if request is None or each.request_id == request:
            yield each


def moment(text: str) -> float:
    """Seconds since 1970 of a moment as a query gives it. Raises BadRequest."""
    if _EPOCH_MS.fullmatch(text):
        return int(text) / 1000
    try:
        given = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that nobody encoded arrives as a space
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest("since must be a moment in ISO 8601 or in milliseconds since 1970") from None


def _shown(kept: BufferedRecord) -> LogRecordJson:
    return LogRecordJson(
        timestamp=iso(kept.at),
        level=kept.word,
        logger=kept.logger,
        message=kept.message,
        request_id=kept.request_id or None,
        meta=kept.meta or UNSET,
    )
