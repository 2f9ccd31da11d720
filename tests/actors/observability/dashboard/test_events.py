"""What viewers hear beside the figures: alerts in order, the text on the fleet's state, jobs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import trio
import trio.testing

from actors.observability.ai_status import AiStatus
from actors.observability.dashboard.alert_ring import MOST, AlertRing
from actors.observability.dashboard.subscriber import Update
from fleet.common.ids import ServerId
from fleet.models.jobs import JobKind
from fleet.observability.alerting.alert import Alert
from tests.kit.clients.watching import Watched, watched


def alert(number: int, **more: Any) -> Alert:
    fields: dict[str, Any] = {"severity": "critical", "state": "firing", "since": 1.7e9, "fired": 1.7e9}
    fields |= {"rule": "FleetServerDown", "title": "b is down", "subject": {"server": "b"}}
    return Alert(id=f"a-{number}", seq=number, **fields | more)


def raise_alerts(here: Watched, *numbers: int) -> None:
    """As the monitor does."""
    for number in numbers:
        for listener in here.system.monitor.alerts._listeners[-1:]:
            listener(alert(number))


async def test_alerts_come_at_once_and_in_order(autojump_clock: object) -> None:
    async with watched("a") as here:
        watcher = here.watch()
        await trio.sleep(0.5)
        raise_alerts(here, *range(1, 31))
        await trio.testing.wait_all_tasks_blocked()
        assert [each["seq"] for each in watcher.of("system_alert")] == list(range(1, 31))
        assert watcher.times("system_alert")[0] == round(trio.current_time(), 3)
        assert watcher.of("system_alert")[0] == orjson.loads(orjson.dumps(alert(1).payload()))


async def test_alerts_of_a_time_without_viewers_cost_nothing(autojump_clock: object) -> None:
    async with watched("a") as here:
        raise_alerts(here, *range(1, 1000))
        assert here.feed._alerts.end == 0
        watcher = here.watch()
        await trio.sleep(1)
        assert watcher.of("system_alert") == []


async def test_who_does_not_read_in_time_is_told_to_read_them_anew(autojump_clock: object) -> None:
    async with watched("a") as here:
        viewer = here.feed.join("10.0.0.1", "plain")
        await viewer.next()
        raise_alerts(here, *range(1, MOST + 2))
        assert orjson.loads((await viewer.next()).data) == {"resync": True}
        raise_alerts(here, 1001)
        assert orjson.loads((await viewer.next()).data)["seq"] == 1001


async def test_what_fires_is_told_on_connect_after_the_figures(autojump_clock: object) -> None:
    async with watched("a", "b") as here:
        watched_alerts = here.system.monitor.alerts._watched
        for number in (1, 2):
            watched_alerts[f"rule{number}", ()] = FakeWatched(alert(number))  # type: ignore[assignment]
        first = here.feed.join("10.0.0.1", "plain")
        await trio.sleep(0.5)
        raise_alerts(here, 3)
        names = [(await first.next()) for _ in range(4)]
        assert [each.event for each in names] == ["metrics_update", *["system_alert"] * 3]
        assert [orjson.loads(each.data)["seq"] for each in names[1:]] == [1, 2, 3]
        rows = {server["id"]: server for server in orjson.loads(names[0].data)["servers"]}
        assert rows["b"]["state"] == "warn"
        assert rows["b"]["why"] == "b is down"
        assert rows["a"]["state"] == "ok"


class FakeWatched:
    """As far as `Alerts.firing` looks."""

    def __init__(self, fires: Alert) -> None:
        self.alert = fires


def test_a_ring_that_overflows_says_so_once() -> None:
    ring = AlertRing()
    for number in range(MOST):
        ring.add(Update("system_alert", b"%d" % number))
    place, first = ring.after(0)
    assert first is not None
    assert (place, first.data) == (1, b"0")
    ring.add(Update("system_alert", b"new"))
    place, told = ring.after(0)
    assert told is not None
    assert (place, told.data) == (MOST + 1, b'{"resync":true}')
    assert ring.after(place) == (place, None)
    assert ring.after(1)[0] == 2


async def test_the_text_is_told_on_connect_and_when_it_is_another(autojump_clock: object) -> None:
    async with watched("a") as here:
        text = AiStatus("all is well", "ok", "rules", None, 1.7e9 - 5, ("server:a",))
        here.system.status_writer.latest = text
        watcher = here.watch()
        await trio.sleep(3)
        (told,) = watcher.of("ai_status_update")
        assert told.pop("age_s") in (5, 6)
        assert told == {
            "timestamp": "2023-11-14T22:13:15.000Z",
            "status": "ok",
            "text": "all is well",
            "source": "rules",
            "model": None,
            "refs": ["server:a"],
        }
        here.system.status_writer.latest = replace(
            text, text="all is not well", level="warn", source="model", model="tiny"
        )
        await trio.sleep(2)
        assert [each["text"] for each in watcher.of("ai_status_update")] == ["all is well", "all is not well"]
        late = here.watch("10.0.0.2")
        await trio.sleep(2)
        assert [each["text"] for each in late.of("ai_status_update")] == ["all is not well"]


async def test_jobs_are_told_while_they_move_and_how_they_ended(autojump_clock: object) -> None:
    async with watched("a") as here:
        watcher = here.watch()
        await trio.sleep(1.2)
        job = here.system.jobs.start(JobKind.WARM, ServerId("a"), "m")
        await trio.sleep(1)
        late = here.watch("10.0.0.2")
        await job.wait(60)
        await trio.sleep(2)
        told = watcher.of("job_update")
        assert [each["state"] for each in (told[0], told[-1])] == ["running", "done"]
        assert {each["id"] for each in told} == {job.id}
        times = watcher.times("job_update")
        assert all(after - before >= 0.5 for before, after in pairwise(times))
        assert late.of("job_update")[0]["state"] == "running"
        assert late.of("job_update")[-1]["state"] == "done"
        await trio.sleep(100)
        assert len(watcher.of("job_update")) == len(told), "what is over is told once"


async def test_rare_figures_do_not_hold_up_the_news(autojump_clock: object) -> None:
    async with watched("a", dashboard={"interval": 60.0}) as here:
        watcher = here.watch()
        await trio.sleep(3)
        job = here.system.jobs.start(JobKind.WARM, ServerId("a"), "m")
        here.system.status_writer.latest = AiStatus("all is well", "ok", "rules", None, 1.7e9)
        await job.wait(20)
        await trio.sleep(2)
        assert watcher.of("job_update")[-1]["state"] == "done"
        assert len(watcher.of("ai_status_update")) == 1
        assert watcher.replica.kinds == ["snapshot"]


async def test_a_job_that_is_over_before_anybody_looked_is_told_too(autojump_clock: object) -> None:
    async with watched("a") as here:
        watcher = here.watch()
        await trio.sleep(1.2)
        job = here.system.jobs.start(JobKind.WARM, ServerId("a"), "m")
        here.system.jobs.cancel(job.id)
        await trio.sleep(2)
        assert [each["state"] for each in watcher.of("job_update")] == ["cancelled"]
