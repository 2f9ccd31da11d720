"""The log ring by REST: filters, order, bounds, and never a prompt."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.common.errors import BadRequest
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served
from web.admin.observability.logs import moment
from web.process.log_buffer import LogRing

LOG = logging.getLogger("fleet.logtest")


@pytest.fixture
async def fleet() -> AsyncIterator[Served]:
    """A fleet in a process whose logging is configured as `fleet serve` does, for its own loggers."""
    root, ours, ring = logging.getLogger(), logging.getLogger("fleet"), LogRing()
    level = ours.level
    root.addHandler(ring)
    ours.setLevel(logging.INFO)
    async with served("a", models="tiny:latest:1GB") as here:
        ring.clear()
        yield here
    root.removeHandler(ring)
    ours.setLevel(level)


def at(created: float, level: int = logging.INFO, message: str = "x", **extra: Any) -> None:
    record = LOG.makeRecord(LOG.name, level, __file__, 1, message, (), None, extra=extra)
    record.created = created
    LOG.handle(record)


async def messages(fleet: Served, query: str = "") -> list[str]:
    found = await ask(fleet, "GET", f"/logs?logger=fleet.logtest{query}")
    assert found["count"] == len(found["logs"])
    return [each["message"] for each in found["logs"]]


async def test_a_record_is_shown_with_all_that_belongs_to_it(fleet: Served) -> None:
    at(1_700_000_000.25, logging.WARNING, "too slow", server="a", seconds=2.5, request_id="r1")
    at(1_700_000_001.0, logging.INFO, "plain")
    found = await ask(fleet, "GET", "/logs?logger=fleet.logtest")
    assert found["success"] is True
    first, second = found["logs"]
    assert first == {
        "timestamp": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "fleet.logtest",
        "message": "too slow",
        "meta": {"server": "a", "seconds": 2.5},
        "requestId": "r1",
    }
    assert (second["message"], second["requestId"], "meta" in second) == ("plain", None, False)
    assert (found["count"], found["dropped"]) == (2, 0)
    assert found["total"] >= 2


FILTERS = [
    # query, messages that pass
    ("", ["debug", "info", "warning", "error"]),
    ("&level=info", ["info", "warning", "error"]),
    ("&level=warn", ["warning", "error"]),
    ("&level=warning", ["warning", "error"]),
    ("&level=error", ["error"]),
    ("&level=critical", []),
    ("&requestId=r2", ["warning"]),
    ("&requestId=r", []),
    ("&limit=2", ["warning", "error"]),
    ("&limit=1&level=info&requestId=r1", ["info"]),
    ("&since=1700000002000", ["warning", "error"]),
    ("&since=2023-11-14T22:13:22Z", ["warning", "error"]),
    ("&since=2023-11-14T23:13:22%2B01:00", ["warning", "error"]),
    ("&since=2023-11-14T22:13:22", ["warning", "error"]),
    ("&since=2030-01-01", []),
]


@pytest.mark.parametrize(("query", "passing"), FILTERS)
async def test_filters_hold_together_and_the_newest_come_last(
    fleet: Served, query: str, passing: list[str], expected_errors: list[str]
) -> None:
    expected_errors.append("error")
    at(1_700_000_000.0, logging.DEBUG, "debug", request_id="r1")
    at(1_700_000_001.0, logging.INFO, "info", request_id="r1")
    at(1_700_000_002.0, logging.WARNING, "warning", request_id="r2")
    at(1_700_000_003.0, logging.ERROR, "error")
    assert await messages(fleet, query) == passing


async def test_a_logger_stands_for_those_below_it_and_not_for_its_namesakes(fleet: Served) -> None:
    for name in ("fleet.logtest", "fleet.logtest.deep", "fleet.logtests"):
        logging.getLogger(name).warning("from %s", name)
    assert await messages(fleet) == ["from fleet.logtest", "from fleet.logtest.deep"]


BAD = [
    "level=loud",
    "limit=0",
    "limit=1001",
    "limit=x",
    "since=yesterday",
    "since=-5",
]


@pytest.mark.parametrize("query", BAD)
async def test_a_filter_that_makes_no_sense_is_refused(fleet: Served, query: str) -> None:
    await ask(fleet, "GET", f"/logs?{query}", status=400)


async def test_clearing_forgets_and_is_itself_on_record(fleet: Served) -> None:
    LOG.warning("before")
    cleared = await ask(fleet, "POST", "/logs/clear")
    assert (cleared["success"], cleared["message"]) == (True, "Logs cleared")
    assert cleared["removed"] >= 1
    found = await ask(fleet, "GET", "/logs")
    assert [each["message"] for each in found["logs"]] == ["clear logs done"]
    assert (found["total"], found["dropped"]) == (1, 0)


async def test_a_request_is_found_by_its_id_and_its_prompt_is_nowhere(fleet: Served) -> None:
    async with fleet.client() as client:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "about submarines"}], "stream": False}
        answer = await client.post("/api/chat", json=body, headers={"X-Request-Id": "find-me"})
        assert answer.status_code == 200
    fleet.system.statistics.request_log.flush()
    found = await ask(fleet, "GET", "/logs?requestId=find-me")
    (shown,) = found["logs"]
    assert (shown["logger"], shown["message"]) == ("fleet.request", "/api/chat completed")
    assert shown["meta"]["server"] == "a"
    assert "submarine" not in json.dumps(await ask(fleet, "GET", "/logs?limit=1000"))


MOMENTS = [
    ("1700000000250", 1_700_000_000.25),
    ("0", 0.0),
    ("2023-11-14T22:13:20.250Z", 1_700_000_000.25),
    ("2023-11-14 22:13:20", None),
    ("2023-11-15", datetime(2023, 11, 15, tzinfo=UTC).timestamp()),
    ("2023-11-14T23:13:20 01:00", 1_700_000_000.0),
]


@pytest.mark.parametrize(("text", "seconds"), MOMENTS)
def test_moments_are_read_in_both_notations(text: str, seconds: float | None) -> None:
    assert moment(text) == (1_700_000_000.0 if seconds is None else seconds)


@pytest.mark.parametrize("text", ["", "x", "1e9", "12:00", "9" * 16, "2023-13-01"])
def test_other_moments_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        moment(text)
