"""What may be asked of the history, and what is answered: sums by some names, and pages of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from fleet.history.request_row import RequestRow
from fleet.history.rollups import Rollup
from fleet.history.time_ranges import TimeSpan


class SumsQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of the requests that ended in `span`, one for each combination of the names `by`.

    `by` and the keys of `names` are of server, model, endpoint, client, outcome; `names` leaves out what has none of
    those. `step`: seconds, a multiple of a tier: one sum for each such bucket. `sketches`: those that are wanted.
    """

    span: TimeSpan
    by: Sequence[str] = ()
    names: Mapping[str, Sequence[str]] = {}
    step: int | None = None
    sketches: Sequence[str] = ()


class SumsGroup(NamedTuple):
    """The sum of one combination. `names`: in the order of `by`; `bucket`: its beginning, or that of the span."""

    bucket: int
    names: tuple[str, ...]
    sums: Rollup


class RowsQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that ended from `since` until `until` (seconds since 1970), the newest first unless `oldest_first`.

    `beyond`: only those after this number in that order, which is the next page. `names` as in `SumsQuestion`.
    `identity`: only the request with this id, or those of this trace, whenever. `longer`: that took more seconds.
    """

    since: float
    until: float
    limit: int
    oldest_first: bool = False
    beyond: int | None = None
    names: Mapping[str, Sequence[str]] = {}
    identity: str = ""
    status: int | None = None
    longer: float | None = None
    cold: bool | None = None
    retried: bool | None = None


class RowsPage(NamedTuple):
    """Requests with their numbers. `more`: there are others after them."""

    rows: Sequence[tuple[int, RequestRow]]
    more: bool
