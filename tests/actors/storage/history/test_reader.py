"""What is read of a history equals what was written, and no question walks all requests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from actors.storage.database_file import StoreFile
from actors.storage.history.database import HistoryDatabase
from actors.storage.history.reader import HistoryReader, UnreadableHistory
from fleet.history.questions import RowsQuestion, SumsQuestion
from fleet.history.request_row import AttemptRow, RequestRow, outcome_class
from fleet.history.rollups import Rollup
from fleet.history.time_ranges import TimeSpan
from tests.fleet.history.test_request_row import row

START = 1_700_006_400.0
"""A whole hour."""
HOURS = 30


def some() -> list[tuple[float, RequestRow]]:
    """Requests of thirty hours, one in forty seconds or so."""
    dice = random.Random(7)
    made: list[tuple[float, RequestRow]] = []
    at = START
    while at < START + HOURS * 3600:
        at += dice.uniform(0.0, 80.0)
        tries = dice.choice((1, 1, 1, 1, 2))
        made.append(
            (
                at,
                row(
                    request=f"r{len(made)}",
                    trace=f"t{len(made) // 2}" if len(made) % 5 == 0 else None,
                    server=dice.choice(("a", "b", "c", "")),
                    model=dice.choice(("m:latest", "n:latest", "o:latest")),
                    endpoint=dice.choice(("/api/chat", "/v1/chat/completions")),
                    client=dice.choice(("key:ann", "key:bob")),
                    outcome=dice.choice(("completed",) * 8 + ("client_left", "backend_broke", "refused_404")),
                    status=dice.choice((200, 200, 404, 502)),
                    total=dice.uniform(0.01, 20.0),
                    load=dice.choice((None, None, 0.01, 3.0)),
                    tries=tries,
                    attempts=[
                        AttemptRow("b", "backend_broke", 0.0, 0.1, None),
                        AttemptRow("a", "completed", 0.1, 1.0, 0.5),
                    ]
                    if tries == 2
                    else (),
                ),
            )
        )
    made.append(
        (START + HOURS * 3600 - 1.0, row(request="last", model="rare:latest", outcome="queue_full", status=503))
    )
    return sorted(made, key=lambda each: each[0])


ROWS = some()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "history.db"
    database = HistoryDatabase(StoreFile(path, lambda: START))
    database.open()
    for at in range(0, len(ROWS), 50):
        database.write(ROWS[at : at + 50])
    database.close()
    return path


@pytest.fixture
def reader(path: Path) -> Iterator[HistoryReader]:
    made = HistoryReader(path, within=30.0)
    yield made
    made.close()


def expected(question: SumsQuestion) -> dict[tuple[int, tuple[str, ...]], Rollup]:
    found: dict[tuple[int, tuple[str, ...]], Rollup] = {}
    for at, each in ROWS:
        if not question.span.since <= at < question.span.until:
            continue
        if any(getattr(each, kind) not in wanted for kind, wanted in question.names.items()):
            continue
        bucket = question.span.since if question.step is None else int(at) // question.step * question.step
        names = tuple(getattr(each, kind) for kind in question.by)
        found.setdefault((bucket, names), Rollup()).add(each)
    return found


WHOLE = TimeSpan(int(START), int(START) + HOURS * 3600)


@pytest.mark.parametrize(
    "question",
    [
        SumsQuestion(span=WHOLE, sketches=("totals", "waits", "first_tokens")),
        SumsQuestion(span=WHOLE, by=("server", "model", "outcome"), sketches=("totals",)),
        SumsQuestion(span=TimeSpan(WHOLE.since + 120, WHOLE.until - 4380), by=("model",), sketches=("totals",)),
        SumsQuestion(span=WHOLE, step=900, names={"server": ["a", "b"]}),
        SumsQuestion(span=WHOLE, step=3600, by=("outcome",), names={"model": ["m:latest"], "client": ["key:ann", "?"]}),
        SumsQuestion(span=TimeSpan(WHOLE.until - 3600, WHOLE.until), by=("client", "endpoint"), step=60),
        SumsQuestion(span=WHOLE, names={"model": ["nobody asked for that"]}),
        SumsQuestion(span=TimeSpan(0, 86_400)),
    ],
)
def test_sums_are_those_of_the_rows(reader: HistoryReader, question: SumsQuestion) -> None:
    found = {(bucket, names): sums for bucket, names, sums in reader.sums(question)}
    wanted = expected(question)
    assert found.keys() == wanted.keys()
    for key, sums in wanted.items():
        got = found[key]
        for name in ("requests", "attempts", "cold", "prompt_tokens", "output_tokens", "shortest", "longest"):
            assert getattr(got, name) == getattr(sums, name), name
        for name in ("total", "slot", "load", "wait", "wasted"):
            assert getattr(got, name) == pytest.approx(getattr(sums, name)), name
        for name in question.sketches:
            assert getattr(got, name) == getattr(sums, name), name


def fits(each: RequestRow, question: RowsQuestion) -> bool:
    cold = (each.load or 0.0) >= 0.1
    return (
        all(getattr(each, kind) in wanted for kind, wanted in question.names.items())
        and (question.status is None or each.status == question.status)
        and (question.longer is None or each.total > question.longer)
        and (question.cold is None or cold == question.cold)
        and (question.retried is None or (each.tries > 1) == question.retried)
        and (not question.identity or question.identity in (each.request, each.trace))
    )


FILTERS: list[dict[str, Any]] = [
    {},
    {"names": {"server": ["c"]}},
    {"names": {"server": ["a", "c"]}},
    {"names": {"model": ["m:latest"], "endpoint": ["/api/chat"]}},
    {"names": {"outcome": ["backend_broke", "refused_404"], "client": ["key:bob"]}},
    {"names": {"model": ["rare:latest"]}},
    {"names": {"model": ["unknown"]}},
    {"status": 503},
    {"status": 404},
    {"longer": 19.5},
    {"cold": True},
    {"cold": False},
    {"retried": True, "cold": True},
    {"retried": False},
    {"identity": "r17"},
    {"identity": "t5"},
]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_requests_are_found_page_by_page(reader: HistoryReader, filters: dict[str, Any], oldest_first: bool) -> None:
    since, until = START + 1000.0, START + HOURS * 3600
    question = RowsQuestion(since=since, until=until, limit=37, oldest_first=oldest_first, **filters)
    within = [each for at, each in ROWS if question.identity or since <= at < until]
    wanted = [each.request for each in within if fits(each, question)]
    found: list[str] = []
    beyond = None
    for _ in range(len(ROWS)):
        page = reader.rows(
            RowsQuestion(since=since, until=until, limit=37, oldest_first=oldest_first, beyond=beyond, **filters)
        )
        found += [each.request for _, each in page.rows]
        if not page.more:
            break
        beyond = page.rows[-1][0]
    assert found == (wanted if oldest_first else wanted[::-1])


def test_a_request_has_its_attempts(reader: HistoryReader) -> None:
    several = next(each for _, each in ROWS if each.tries == 2)
    page = reader.rows(RowsQuestion(since=0.0, until=1e10, limit=2, identity=several.request))
    assert [each for _, each in page.rows] == [several]


def test_no_question_walks_all_requests(reader: HistoryReader) -> None:
    """Each statement that was executed is explained: `requests` is searched by its number or an index."""
    reader.sums(SumsQuestion(span=WHOLE))
    asked: list[tuple[str, Any]] = []
    assert reader.engine is not None
    event.listen(reader.engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    for filters in FILTERS:
        for oldest_first in (False, True):
            reader.rows(RowsQuestion(since=START, until=START + 9e4, limit=9, oldest_first=oldest_first, **filters))
    for by in ((), ("server", "model"), ("outcome",)):
        reader.sums(SumsQuestion(span=WHOLE, by=by, step=3600, names={"server": ["a"]}, sketches=("totals",)))
    with reader.engine.connect() as connection:
        statements = {statement: parameters for statement, parameters in asked if statement.startswith("SELECT")}
        assert len(statements) > 10
        for statement, parameters in statements.items():
            plan = [line[3] for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for line in plan:
                assert not line.startswith(("SCAN requests", "SCAN rollups", "SCAN attempts")), (statement, plan)
            if "FROM requests" in statement and "request =" not in statement.replace("requests.request", "request"):
                assert any("id>? AND " in line for line in plan), (statement, plan)
                assert not any("TEMP B-TREE" in line for line in plan), (statement, plan)


def test_what_takes_too_long_is_given_up(path: Path) -> None:
    hasty = HistoryReader(path, within=0.0)
    with pytest.raises(UnreadableHistory, match="too long"):
        hasty.rows(RowsQuestion(since=0.0, until=1e10, limit=1000, longer=19.99))
    hasty.close()


def test_nothing_can_be_written(reader: HistoryReader) -> None:
    reader.sums(SumsQuestion(span=WHOLE))
    assert reader.engine is not None
    with reader.engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(text("delete from requests"))


def test_there_is_no_file_yet_and_then_another(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    reader = HistoryReader(path)
    assert reader.sums(SumsQuestion(span=WHOLE)) == []
    assert reader.rows(RowsQuestion(since=0.0, until=1e10, limit=9)) == ([], False)
    for name in ("a", "b"):
        path.unlink(missing_ok=True)
        database = HistoryDatabase(StoreFile(path, lambda: START))
        database.open()
        database.write([(START, row(server=name))])
        (group,) = reader.sums(SumsQuestion(span=WHOLE, by=("server",)))
        assert group.names == (name,)
        database.close()
    reader.close()


def test_outcomes_of_the_rows_are_of_all_classes() -> None:
    assert {outcome_class(each.outcome) for _, each in ROWS} == {"answered", "left", "failed", "refused"}
