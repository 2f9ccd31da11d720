"""One server in a snapshot: its state in one word, why, since when, what comes next."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fleet.breakers.gate import Gate, GateState
from fleet.common.ids import ModelName, ServerId
from fleet.config import ServerSpec
from fleet.observability.dashboard.live_figures import FigureSums
from fleet.observability.dashboard.server_rows import Around, ServerStatus, row, standing
from fleet.scheduling.server_state import Admin, Health, ServerState

EPOCH = 1000.0


def server(**fields: Any) -> ServerState:
    state = ServerState(ServerSpec(id=ServerId("a"), url="http://127.0.0.1:1", max_concurrency=3))
    for name, value in {"health": Health.HEALTHY, "since": 5.0, "why": "answers probes", **fields}.items():
        setattr(state, name, value)
    return state


def shut(retry_at: float) -> Gate:
    gate = Gate()
    gate.show(GateState.SHUT, retry_at=retry_at)
    return gate


def around(**more: Any) -> Around:
    return Around(**{"epoch": lambda moment: EPOCH + moment, "drain_timeout": 30.0, **more})


DRAINING = {"admin": Admin.DRAINING, "admin_since": 7.0, "admin_why": "by ana"}
GATES = {ModelName("n"): shut(40.0), ModelName("m"): shut(20.0), ModelName("k"): Gate()}
COMPLAINT = ServerStatus("warn", "5x slower", 1003.0)


@pytest.mark.parametrize(
    ("fields", "more", "expected"),
    [
        ({}, {}, ("ok", "answers probes", 1005.0, None)),
        ({"health": Health.UNKNOWN, "why": "not probed yet"}, {}, ("unknown", "not probed yet", 1005.0, None)),
        ({"health": Health.UNHEALTHY, "why": "refused"}, {"probe_at": 9.0}, ("crit", "refused", 1005.0, 1009.0)),
        ({"health": Health.UNHEALTHY, "why": "refused"}, {}, ("crit", "refused", 1005.0, None)),
        (DRAINING, {}, ("draining", "0 requests left: by ana", 1007.0, 1037.0)),
        ({**DRAINING, "admin": Admin.DRAINED}, {}, ("drained", "drained: by ana", 1007.0, None)),
        (
            {**DRAINING, "admin": Admin.DRAINED, "admin_why": "drained by the operator"},
            {},
            ("drained", "drained by the operator", 1007.0, None),
        ),
        (
            {"admin": Admin.MAINTENANCE, "admin_since": 7.0, "admin_why": "new fan", "until": 90.0},
            {},
            ("maintenance", "new fan", 1007.0, 1090.0),
        ),
        (
            {"admin": Admin.MAINTENANCE, "admin_since": 7.0, "admin_why": "", "health": Health.UNHEALTHY},
            {"complaint": COMPLAINT},
            ("maintenance", "", 1007.0, None),
        ),
        ({"gates": GATES}, {"opened": lambda model: 3.0}, ("warn", "breaker open: m and 1 more", 1003.0, 1020.0)),
        (
            {"gates": GATES},
            {"opened": {"m": 3.0, "n": 2.0}.get},  # the first of them opened at 2
            ("warn", "breaker open: m and 1 more", 1002.0, 1020.0),
        ),
        ({"gates": {ModelName("m"): shut(math.inf)}}, {}, ("warn", "breaker open: m", None, None)),
        ({}, {"complaint": COMPLAINT}, COMPLAINT),
        ({"health": Health.UNHEALTHY, "why": "refused"}, {"complaint": COMPLAINT}, ("crit", "refused", 1005.0, None)),
    ],
)
def test_one_word_for_a_server(fields: dict[str, Any], more: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert standing(server(**fields), around(**more)) == expected


def test_a_server_s_row_does_not_name_it_twice() -> None:
    down = server(health=Health.UNHEALTHY, why="a: connection refused by a: 1")
    assert row(down, around(), FigureSums(), 60.0, {})["why"] == "connection refused by a: 1"


def test_the_figures_of_a_server() -> None:
    rows = {ModelName("m"): {"size_vram": 2**30}, ModelName("n"): {"size_vram": "lots"}, ModelName("o"): {}}
    state = server(models={ModelName("m"): {}, ModelName("n"): {}}, resident=rows)
    state.ledger.open(1, ModelName("m"))
    shown = row(state, around(), FigureSums(), 60.0, {ModelName("m"): 2, ModelName("n"): 1, ModelName("elsewhere"): 9})
    assert shown == {
        "state": "ok",
        "why": "answers probes",
        "since": 1005.0,
        "next": None,
        "inflight": 1,
        "slots": 3,
        "queue": 3,
        "tps": None,
        "ttft": None,
        "p95": None,
        "err": None,
        "vram": [2**30, None],
        "hot": 3,
        "models": 2,
    }
