from __future__ import annotations

from fleet.history.figures import figures_by, figures_of, figures_over_time
from fleet.history.questions import SumsGroup
from fleet.history.rollups import Rollup
from tests.fleet.history.test_request_row import row


def group(bucket: int, server: str, outcome: str, *totals: float) -> SumsGroup:
    sums = Rollup()
    for total in totals:
        sums.add(row(server=server, outcome=outcome, total=total))
    return SumsGroup(bucket, (server, outcome), sums)


GROUPS = [
    group(60, "b", "completed", 1.0, 3.0),
    group(0, "a", "completed", 2.0),
    group(0, "a", "backend_broke", 4.0),
    group(0, "a", "refused_404", 1.0),
    group(0, "a", "client_left", 5.0),
]


def test_requests_are_counted_by_what_became_of_them() -> None:
    found = figures_by(GROUPS, 0)
    assert found.keys() == {("a",), ("b",)}
    a = found["a",]
    assert (a.requests, a.answered, a.errors, a.left) == (4, 1, 2, 1)
    assert (a.error_rate, a.average) == (0.5, 3.0)


def test_all_together_and_over_time() -> None:
    assert (figures_of(GROUPS).requests, figures_of([]).requests, figures_of([]).average) == (6, 0, 0.0)
    assert [(bucket, each.requests) for bucket, each in figures_over_time(GROUPS).items()] == [(0, 4), (60, 2)]
