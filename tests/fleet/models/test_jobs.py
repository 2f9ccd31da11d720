"""Whose turn it is, and how far a download has come: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, ServerId
from fleet.models.jobs import MOST_LAYERS, Download, JobState, Limits, Progress, choose, is_embedding, percent_of

GB = 10**9


def layer(digest: str, total: object = None, completed: object = None) -> dict[str, object]:
    record: dict[str, object] = {"status": f"pulling {digest}", "digest": digest}
    if total is not None:
        record["total"] = total
    if completed is not None:
        record["completed"] = completed
    return record


def download(*records: tuple[float, dict[str, object]]) -> Download:
    made = Download()
    for at, record in records:
        made.take(record, at)
    return made


TOLD: list[tuple[list[dict[str, object]], tuple[int | None, int | None, float | None]]] = [
    # records, (completed, total, percent)
    ([], (None, None, None)),
    ([{"status": "pulling manifest"}], (None, None, None)),
    ([layer("a", 100)], (0, 100, 0.0)),
    ([layer("a", 100, 25)], (25, 100, 25.0)),
    ([layer("a", 100, 25), layer("b", 300, 75)], (100, 400, 25.0)),
    ([layer("a", 100, 50), layer("a", 100, 20)], (50, 100, 50.0)),
    ([layer("a", 100, 900)], (100, 100, 100.0)),
    ([layer("a", 1000, 999), layer("b", 10**12, 1)], (1000, 10**12 + 1000, 0.0)),
    ([layer("a", 10**9, 10**9 - 1)], (10**9 - 1, 10**9, 99.9)),
    ([layer("a", -5, -7)], (0, 0, None)),
    ([layer("a", True, True)], (0, 0, None)),
    ([layer("a", "100", 5.5)], (0, 0, None)),
    ([layer("", 100, 5)], (None, None, None)),
    ([{"digest": 7, "total": 100}], (None, None, None)),
]


@pytest.mark.parametrize(("records", "expected"), TOLD)
def test_progress_adds_up_the_layers_seen(records: list[dict[str, object]], expected: tuple[Any, ...]) -> None:
    come = download(*((0.0, record) for record in records)).progress(0.0)
    assert (come.completed, come.total, come.percent) == expected


def test_the_rate_is_what_came_during_this_pull_and_the_eta_follows_from_it() -> None:
    """Half was there before: resumed bytes are progress, not speed."""
    records = [(float(second), layer("a", 10 * GB, 5 * GB + second * GB // 10)) for second in range(21)]
    come = download(*records).progress(20.0)
    assert come.completed == 7 * GB
    assert come.rate == pytest.approx(GB / 10, rel=0.01)
    assert come.eta == pytest.approx(30.0, rel=0.01)


def test_a_burst_of_records_does_not_look_like_speed() -> None:
    burst = [(0.001 * n, layer("a", GB, n * GB // 100)) for n in range(50)]
    assert download(*burst).progress(0.1).rate is None
    later = download(*burst, (10.0, layer("a", GB, GB // 2)))
    rate = later.progress(10.0).rate
    assert rate is not None
    assert rate == pytest.approx(GB / 2 / 10, rel=0.01)


def test_the_rate_falls_while_nothing_comes() -> None:
    """Or the time left would be promised for ever."""
    made = download(*((float(n), layer("a", 100 * GB, n * GB)) for n in range(10)))
    rates = [made.progress(9.0 + silent).rate or 0.0 for silent in (0.0, 5.0, 20.0, 60.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[3] < rates[0] / 1000
    assert made.progress(1000.0).eta is None


def test_a_pull_that_succeeded_is_complete_whatever_the_records_said() -> None:
    made = download((0.0, layer("a", 100, 40)))
    made.finish()
    assert made.progress(1.0) == Progress(100, 100, 100.0, None, 0.0)


def test_a_server_that_invents_layers_fills_nothing() -> None:
    made = download(*((0.0, layer(f"d{n}", 2**63, 2**63)) for n in range(MOST_LAYERS + 100)))
    assert len(made.layers) == MOST_LAYERS
    come = made.progress(0.0)
    assert orjson.loads(orjson.dumps([come.completed, come.total])) == [come.total, come.total]


sizes = st.one_of(st.integers(-(2**64), 2**64), st.none(), st.text(max_size=3), st.booleans())
records = st.builds(layer, st.sampled_from("abcd"), sizes, sizes)


@given(st.lists(st.tuples(st.floats(0, 5), records), max_size=40))
def test_progress_never_runs_backwards_or_past_the_end(steps: list[tuple[float, dict[str, object]]]) -> None:
    made, now, before = Download(), 0.0, 0
    for gap, record in steps:
        now += gap
        made.take(record, now)
        come = made.progress(now)
        assert come.completed is not None
        assert come.total is not None
        assert before <= come.completed <= come.total
        assert come.percent is None or 0.0 <= come.percent <= 100.0
        assert (come.percent == 100.0) == (come.completed == come.total > 0)
        assert come.rate is None or come.rate >= 0.0
        assert come.eta is None or 0.0 <= come.eta < 1e8
        orjson.dumps([come.completed, come.total, come.rate and round(come.rate), come.eta and round(come.eta * 1000)])
        before = come.completed


@pytest.mark.parametrize(("completed", "total", "percent"), [(0, 0, None), (0, 7, 0.0), (1, 3, 33.3), (7, 7, 100.0)])
def test_percent(completed: int, total: int, percent: float | None) -> None:
    assert percent_of(completed, total) == percent


# ---- whose turn


A, B = ServerId("a"), ServerId("b")


@dataclass(frozen=True)
class Task:
    number: int
    server: ServerId = A
    model: str = ""
    priority: int = 0

    @property
    def key(self) -> tuple[ServerId, ModelName]:
        return self.server, ModelName(self.model or str(self.number))


TURNS: list[tuple[list[Task], list[Task], tuple[int, int], int | None]] = [
    # waiting, running, (per server, total), whose turn
    ([], [], (1, 1), None),
    ([Task(1), Task(2)], [], (1, 1), 1),
    ([Task(1), Task(2, priority=5), Task(3, priority=5)], [], (1, 1), 2),
    ([Task(1), Task(2, B)], [Task(0)], (1, 2), 2),
    ([Task(1), Task(2, B)], [Task(0)], (1, 1), None),
    ([Task(1)], [Task(0)], (2, 2), 1),
    ([Task(1, model="m"), Task(2, model="n")], [Task(0, model="m")], (3, 3), 2),
    ([Task(1, model="m")], [Task(0, B, model="m")], (3, 3), 1),
]


@pytest.mark.parametrize(("waiting", "running", "limits", "turn"), TURNS)
def test_whose_turn_it_is(waiting: list[Task], running: list[Task], limits: tuple[int, int], turn: int | None) -> None:
    chosen = choose(waiting, running, Limits(*limits))
    assert (chosen.number if chosen else None) == turn


tasks = st.builds(Task, st.integers(0, 10**6), st.sampled_from([A, B]), st.sampled_from("mn"), st.integers(-2, 2))


@given(st.lists(tasks, max_size=12), st.integers(1, 3), st.integers(1, 4))
def test_nobody_waits_while_there_is_room_and_no_limit_is_passed(
    waiting: list[Task], per_server: int, total: int
) -> None:
    limits, left, running = Limits(per_server, total), list(waiting), list[Task]()
    while (turn := choose(left, running, limits)) is not None:
        left.remove(turn)
        running.append(turn)
    counts = [sum(task.server == server for task in running) for server in (A, B)]
    assert len(running) <= total
    assert max(counts) <= per_server
    assert len({task.key for task in running}) == len(running)
    for task in left:
        full = counts[task.server == B] >= per_server
        assert len(running) == total or full or task.key in {each.key for each in running}


def test_ends_are_ends() -> None:
    assert {state.value for state in JobState if state.ended} == {"done", "failed", "cancelled"}


ROWS: list[tuple[dict[str, object], bool]] = [
    ({"capabilities": ["embedding"]}, True),
    ({"capabilities": ["completion", "embedding"]}, False),
    ({"details": {"family": "nomic-bert"}}, True),
    ({"details": {"family": "llama"}}, False),
    ({"details": None, "capabilities": "embedding"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("row", "embeds"), ROWS)
def test_models_that_only_embed(row: dict[str, object], embeds: bool) -> None:
    assert is_embedding(row) is embeds
