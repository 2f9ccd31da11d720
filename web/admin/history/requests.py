"""Single requests of the past: searched, and by server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fleet.breakers.failure_classes import CLASSES
from fleet.common.errors import BadRequest
from fleet.history.questions import RowsPage, RowsQuestion
from fleet.history.request_row import OUTCOME_CLASSES, outcome_class
from web.admin.history import asked as past
from web.admin.history.row_views import PastRequestJson, RetentionJson, retention, shown
from web.admin.kit.answers import Answer
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("history", "Finished requests, one by one.")

MOST: Final = 1_000
_OUTCOMES: Final = (*[each.outcome for each in CLASSES], *[f"refused_{status}" for status in range(400, 600)])
_CURSOR: Final = Param("cursor", str, None, "The `next` of the page before.")
_LIMIT: Final = Param("limit", int, 100, "Most requests of the answer.", 1, MOST)
_ORDER: Final = Param("order", str, "desc", "desc: the newest first; asc: the oldest.", words=("desc", "asc"))
_STATUS: Final = Param("status", str, None, "success, error, left, or a status of HTTP.")
_OUTCOME: Final = Param("outcome", str, None, "An outcome, or a class of them: answered, refused, failed, left.")
_MATCHING: Final = (
    Param("q", str, None, "A request id or trace id, whenever it was."),
    past.CLIENT,
    past.ENDPOINT,
    _STATUS,
    _OUTCOME,
    Param("success", bool, None, "Only requests that were answered, or only those that were not."),
    Param("slower_than", int, None, "Only requests that took more milliseconds.", 0, 10**10),
    Param("cold", bool, None, "Only requests that waited for a load, or only those that did not."),
    Param("retried", bool, None, "Only requests with several attempts, or only those with one."),
)
_PAGE: Final = (_LIMIT, _CURSOR, _ORDER)
_WORDS: Final = {
    "success": ("answered",),
    "error": ("refused", "failed"),
    **{each: (each,) for each in OUTCOME_CLASSES},
}


class PastRequestsAnswer(Answer, kw_only=True):
    """A page of finished requests."""

    server_id: str | None
    model: str | None
    count: int
    requests: list[PastRequestJson]
    next: Annotated[str | None, "the cursor of the next page; null on the last one"]
    retention: RetentionJson


@topic.get(
    "/analytics/requests/search",
    "Finished requests, the newest first, by any of these.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(past.SERVER, past.MODEL, *_MATCHING, *past.ranges("7d"), *_PAGE),
)
async def search(asked: AdminRequest) -> PastRequestsAnswer:
    return await _page(asked, past.names_of(asked))


@topic.get(
    "/analytics/requests/<server_id>",
    "Finished requests of one server, the newest first.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(past.MODEL, *_MATCHING, *past.ranges("7d"), *_PAGE),
)
async def of_server(asked: AdminRequest, server_id: str) -> PastRequestsAnswer:
    return await _page(asked, past.names_of(asked, server=server_id))


async def _page(asked: AdminRequest, names: Mapping[str, Sequence[str]]) -> PastRequestsAnswer:
    queries = await past.queries_of(asked)
    question = _question(asked, names)
    page: RowsPage = RowsPage([], False) if question is None else await queries.rows(question)
    return PastRequestsAnswer(
        server_id=names.get("server", [None])[0],
        model=names.get("model", [None])[0],
        count=len(page.rows),
        requests=[shown(row) for _, row in page.rows],
        next=str(page.rows[-1][0]) if page.more else None,
        retention=retention(asked.system),
    )


def _question(asked: AdminRequest, names: Mapping[str, Sequence[str]]) -> RowsQuestion | None:
    """What is asked for; None if nothing can be so. Raises BadRequest."""
    query, within = asked.query, past.range_of(asked)
    outcomes, status = _ended(query)
    if outcomes is not None and not outcomes:
        return None
    slower = query["slower_than"]
    return RowsQuestion(
        since=within.since,
        until=within.until,
        limit=query["limit"],
        oldest_first=query["order"] == "asc",
        beyond=_number(query["cursor"]),
        names=names if outcomes is None else {**names, "outcome": outcomes},
        identity=query["q"] or "",
        status=status,
        longer=None if slower is None else slower / 1000.0,
        cold=query["cold"],
        retried=query["retried"],
    )


def _ended(query: Mapping[str, Any]) -> tuple[list[str] | None, int | None]:
    """The outcomes that are wanted, if not all, and the status. Raises BadRequest."""
    found: set[str] | None = None
    status: int | None = None
    word, outcome, success = query["status"], query["outcome"], query["success"]
    if word is not None and word not in _WORDS:
        if not (word.isdecimal() and len(word) == 3):
            raise BadRequest("status must be success, error, left, or a status of HTTP")
        status = int(word)
    for classes in (_WORDS.get(word), _WORDS.get(outcome), None if success is None else _succeeded(success)):
        if classes is not None:
            fitting = set(outcomes_of(*classes))
            found = fitting if found is None else found & fitting
    if outcome is not None and outcome not in _WORDS:
        found = {outcome} if found is None else found & {outcome}
    return (None if found is None else sorted(found)), status


def outcomes_of(*classes: str) -> list[str]:
    """All outcomes that count as one of these classes."""
    return [each for each in _OUTCOMES if outcome_class(each) in classes]


def _succeeded(success: bool) -> tuple[str, ...]:
    return ("answered",) if success else ("refused", "failed", "left")


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 20 and int(cursor) < 2**63):
        raise BadRequest("cursor must be the `next` of another page")
    return int(cursor)
