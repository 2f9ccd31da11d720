"""What is asked of the history's tables. None of it walks all requests: a range of numbers, or an index, is in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Select, and_, cast, func, or_, select

from actors.storage.history.schema import ATTEMPTS, META, NAMES, REQUESTS, ROLLUPS
from fleet.history.questions import RowsQuestion, SumsQuestion
from fleet.history.request_row import COLD
from fleet.history.rollups import MINUTE, SUMS, Rollup
from fleet.history.time_ranges import TierPart

Numbers = Mapping[str, Sequence[int]]
"""By kind: the numbers of the names that are wanted."""
HOUR: Final = 3600
_COLUMNS: Final = ROLLUPS.c


def marks() -> Select[Any]:
    """Up to when each tier contains the finer one."""
    return select(META.c.name, META.c.number).where(META.c.name.like("rolled %"))


def names_after(number: int) -> Select[Any]:
    """Names that were written after one."""
    return select(NAMES.c.id, NAMES.c.kind, NAMES.c.name).where(NAMES.c.id > number).order_by(NAMES.c.id)


def sums(part: TierPart, wanted: SumsQuestion, numbers: Numbers) -> Select[Any]:
    """Of one part of the range: bucket and names, counts and seconds, the shortest and the longest."""
    keys = _keys(part, wanted)
    added = [func.sum(_COLUMNS[name]).label(name) for name in SUMS]
    ends = [func.min(_COLUMNS.shortest).label("shortest"), func.max(_COLUMNS.longest).label("longest")]
    return (
        select(*keys, *added, *ends)
        .where(*_within(part, (*wanted.by, *numbers)), *_of(ROLLUPS.c, numbers))
        .group_by(*keys)
    )


def sketches(part: TierPart, wanted: SumsQuestion, numbers: Numbers) -> Select[Any]:
    """Of one part of the range: bucket and names, and the sketches that are wanted, to be merged."""
    columns = [_COLUMNS[name] for name in wanted.sketches]
    return select(*_keys(part, wanted), *columns).where(
        *_within(part, (*wanted.by, *numbers)), *_of(ROLLUPS.c, numbers)
    )


def hours_with(part: TierPart, wanted: RowsQuestion, numbers: Numbers) -> Select[Any]:
    """The hours in which there are requests like these: their sums tell, without a look at any request."""
    conditions = [*_within(part, tuple(numbers)), *_of(ROLLUPS.c, numbers)]
    if wanted.longer is not None:
        conditions.append(_COLUMNS.longest > wanted.longer)
    if wanted.cold is not None:
        conditions.append(_COLUMNS.cold > 0 if wanted.cold else _COLUMNS.cold < _COLUMNS.requests)
    if wanted.retried:
        conditions.append(_COLUMNS.attempts > _COLUMNS.requests)
    return select(_COLUMNS.bucket).where(*conditions).distinct().order_by(_COLUMNS.bucket)


def requests_between(first: int, last: int, wanted: RowsQuestion, numbers: Numbers, limit: int) -> Select[Any]:
    """Requests with numbers from the first to before the last."""
    table = REQUESTS.c
    conditions: list[ColumnElement[bool]] = _of(table, numbers)
    if len(numbers.get("server", ())) > 1:  # the index by server would have all of several sorted, for one page
        conditions = [*_of(table, {**numbers, "server": ()}), (table.server + 0).in_(numbers["server"])]
    if wanted.identity:
        conditions.append(or_(table.request == wanted.identity, table.trace == wanted.identity))
    else:
        conditions += [table.id >= first, table.id < last]
    if wanted.status is not None:
        conditions.append(table.status == wanted.status)
    if wanted.longer is not None:
        conditions.append(table.total > wanted.longer)
    if wanted.cold is not None:
        cold = func.coalesce(table.load, 0.0) >= COLD
        conditions.append(cold if wanted.cold else ~cold)
    if wanted.retried is not None:
        conditions.append(table.tries > 1 if wanted.retried else table.tries <= 1)
    order = table.id if wanted.oldest_first else table.id.desc()
    return select(REQUESTS).where(and_(*conditions)).order_by(order).limit(limit)


def attempts_of(numbers: Sequence[int]) -> Select[Any]:
    """The attempts of some requests, in order."""
    return select(ATTEMPTS).where(ATTEMPTS.c.id.in_(numbers)).order_by(ATTEMPTS.c.id, ATTEMPTS.c.number)


def group_of(row: Any, width: int) -> tuple[int, tuple[int, ...], Rollup]:
    """Bucket, names and sum of a row of `sums`. `width`: how many names there are."""
    figures = dict(zip((*SUMS, "shortest", "longest"), row[1 + width :], strict=True))
    return row[0], tuple(row[1 : 1 + width]), Rollup(**figures)


def _keys(part: TierPart, wanted: SumsQuestion) -> list[ColumnElement[Any]]:
    step = wanted.step
    bucket = cast(wanted.span.since, Integer) if step is None else _COLUMNS.bucket - _COLUMNS.bucket % step
    return [bucket.label("at"), *[_COLUMNS[kind] for kind in wanted.by]]


def _within(part: TierPart, kinds: Sequence[str]) -> list[ColumnElement[bool]]:
    """Buckets of the part: their summaries, if these tell apart all kinds of names that matter."""
    summaries = part.tier != MINUTE and not {"endpoint", "client"} & set(kinds)
    return [
        _COLUMNS.tier == (-part.tier if summaries else part.tier),
        _COLUMNS.bucket >= part.since,
        _COLUMNS.bucket < part.until,
    ]


def _of(table: Any, numbers: Numbers) -> list[ColumnElement[bool]]:
    return [table[kind].in_(wanted) for kind, wanted in numbers.items() if wanted]
