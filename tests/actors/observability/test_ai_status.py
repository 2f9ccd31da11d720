"""The AI status: by rules at once, by a model when nobody is in the way, and never at anybody's cost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.config.reconfigure import apply
from actors.observability.ai_status import AiStatus, StatusWriter
from actors.observability.ai_status_model import StatusModel, place
from actors.state.messages import OURSELVES, PauseQueue
from actors.system import System
from fleet.common.ids import ModelName, ServerId
from fleet.config.schema.observability import AiStatusSection
from fleet.observability.alerting.facts import NO_TRAFFIC
from fleet.observability.health_summary.status_text import LONGEST
from fleet.observability.health_summary.summary import HealthSummary, Level
from fleet.protocol.headers import LOWEST_PRIORITY
from fleet.simulator import Profile
from tests.kit.fleets.fleet import QUICK, Client, Fleet, chat, open_fleet
from tests.kit.suite.records import recent
from web.simulator.engine.host import SeenRequest

WITH_MODEL = {"enabled": True, "model": "tiny"}
MODELS = "m:latest:1GB,tiny:latest:1GB"
TINY = ModelName("tiny:latest")
FINE = HealthSummary(Level.OK, "ok", "all is well", "", 0.0)
DOWN = HealthSummary(Level.CRIT, "server_down", "a is down", "", 0.0, ("server:a", "model:invented by a client"))


class Judge:
    """Stands for the monitor."""

    def __init__(self) -> None:
        self.verdict = FINE
        self.traffic = NO_TRAFFIC


class Desk:
    """A fleet whose status writer writes."""

    def __init__(self, fleet: Fleet, judge: Judge) -> None:
        self.fleet = fleet
        self.judge = judge
        self.status_writer = StatusWriter(fleet.system.watched_fleet, judge, fleet.system.exchange)

    @property
    def latest(self) -> AiStatus:
        latest = self.status_writer.latest
        assert latest is not None
        return latest

    def asked(self) -> list[SeenRequest]:
        return [seen for backend in self.fleet.memory.backends.values() for seen in backend.host.seen("/api/generate")]


@asynccontextmanager
async def writing(
    *servers: str | tuple[str, Profile], status: dict[str, object] | None = None, **config: Any
) -> AsyncIterator[Desk]:
    full = {"models": MODELS, "ai_status": WITH_MODEL if status is None else status, **config}
    async with open_fleet(*(servers or ("a",)), **full) as fleet, trio.open_nursery() as nursery:
        desk = Desk(fleet, Judge())
        nursery.start_soon(desk.status_writer.run)
        await wait_all_tasks_blocked()
        yield desk
        nursery.cancel_scope.cancel()


async def test_the_first_text_is_there_at_once(autojump_clock: MockClock) -> None:
    async with writing(status={}) as desk:
        first = desk.latest
        assert (first.source, first.model, first.level) == ("rules", None, "ok")
        assert first.text == "1 of 1 server up, no traffic."
        await trio.sleep(59)
        assert desk.latest is first
        await trio.sleep(3)
        assert desk.latest is not first
        assert not desk.asked()


async def test_another_verdict_is_another_text_within_a_second(autojump_clock: MockClock) -> None:
    async with writing(status={}) as desk:
        desk.judge.verdict = DOWN
        await trio.sleep(1.1)
        assert (desk.latest.level, desk.latest.refs) == ("crit", DOWN.subjects)
        assert desk.latest.text.startswith("a is down. 1 of 1 server up")


async def test_the_model_writes(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fleet")
    async with writing() as desk:
        desk.judge.verdict = DOWN
        await trio.sleep(30)
        status = desk.latest
        assert (status.source, status.model, status.level) == ("model", "tiny", "crit")
        assert status.text.startswith("Simulated answer: ")
        assert len(status.text) <= LONGEST
        body = desk.asked()[-1].json()
        assert (body["model"], body["stream"], "keep_alive" in body) == ("tiny:latest", False, False)
        assert body["options"]["num_predict"] <= 200
        assert '"about":["server:a"]' in body["prompt"]
        assert "servers_up" not in caplog.text
        desk.fleet.assert_nothing_left()


async def test_it_writes_again_when_the_time_has_come_but_not_all_the_time(autojump_clock: MockClock) -> None:
    async with writing() as desk:
        await trio.sleep(55)
        assert len(desk.asked()) == 1
        for number in range(50):  # the verdict flaps
            desk.judge.verdict = (FINE, DOWN)[number % 2]
            await trio.sleep(1)
        assert 2 <= len(desk.asked()) <= 7


async def test_a_models_text_stays_until_its_next_one(autojump_clock: MockClock) -> None:
    async with writing(status={**WITH_MODEL, "interval": 1}) as desk:
        await trio.sleep(9)
        assert desk.latest.source == "model"
        for _ in range(30):
            await trio.sleep(1)
            assert desk.latest.source == "model"
        assert len(desk.asked()) <= 5


async def test_its_requests_are_in_nobodys_figures(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleet.request")
    async with writing() as desk:
        await trio.sleep(30)
        system = desk.fleet.system
        assert system.statistics.request_log.seen == 1
        (line,) = [each for each in caplog.records if each.name == "fleet.request"]
        assert (getattr(line, "client", ""), getattr(line, "outcome", "")) == (OURSELVES, "completed")
        assert not recent(system.statistics.request_log), "what begins to count later begins with these"
        assert system.statistics.totals.window(300.0)[1].count == 0
        assert system.status_writer.figures().rate == 0.0
        assert system.statistics.demand.embeds(TINY) is None


async def test_figures(autojump_clock: MockClock) -> None:
    async with writing(status={}) as desk:
        for _ in range(6):
            await desk.fleet.system.exchange(chat(), Client())
        desk.fleet.system.statistics.request_log.flush()
        desk.fleet.system.monitor.evaluate()
        figures = desk.fleet.system.status_writer.figures()
        assert figures.rate == pytest.approx(6 / trio.current_time(), rel=0.5)
        assert figures.tokens == pytest.approx(5 * figures.rate)
        assert figures.first_token is not None
        assert 1.9 < figures.first_token < 2.3, "the first one loaded the model"
        await trio.sleep(400)
        desk.fleet.system.monitor.evaluate()
        assert desk.fleet.system.status_writer.figures().first_token is None


# ---- never at anybody's cost


async def test_it_is_not_asked_while_somebody_waits(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, models=MODELS) as fleet, trio.open_nursery() as nursery:
        assert place(fleet.system.watched_fleet, TINY) == "a"
        nursery.start_soon(fleet.system.exchange, chat(tokens=500), Client())
        await wait_all_tasks_blocked()
        assert place(fleet.system.watched_fleet, TINY) is None, "no slot is free"
        nursery.start_soon(fleet.system.exchange, chat(), Client())
        await wait_all_tasks_blocked()
        assert fleet.system.queries.queue_view(0).waiting == 1
        assert place(fleet.system.watched_fleet, TINY) is None
        nursery.cancel_scope.cancel()


async def test_it_is_not_asked_while_the_queue_is_paused_or_the_fleet_drains(autojump_clock: MockClock) -> None:
    async with open_fleet("a", models=MODELS) as fleet:
        cell = fleet.system.watched_fleet
        for paused in (True, False):
            cell.scheduler.mailbox.cast(PauseQueue(paused))
            await wait_all_tasks_blocked()
            assert (place(cell, TINY) is None) is paused
        fleet.system.drain()
        assert place(cell, TINY) is None


async def test_it_displaces_no_other_model(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", models=MODELS) as fleet:
        for server in ("a", "b"):
            await fleet.system.exchange(chat(pinned=server), Client())
        await fleet.until_healthy()
        assert place(fleet.system.watched_fleet, TINY) is None, "both have something in memory, and not this"
        await fleet.system.exchange(chat("tiny", pinned="b"), Client())
        await fleet.until_healthy()
        assert place(fleet.system.watched_fleet, TINY) == "b"


async def test_it_takes_the_runner_that_is_there(autojump_clock: MockClock) -> None:
    async with writing(status={}) as desk:
        call = chat("tiny")
        call.body = call.body.replace(b'"num_predict"', b'"num_ctx":8192,"num_predict"')  # type: ignore[union-attr]
        call.runner = {"num_ctx": 8192}
        await desk.fleet.system.exchange(call, Client())
        await desk.fleet.until_healthy()
        _switch(desk.fleet.system, enabled=True)
        await trio.sleep(30)
        assert desk.latest.source == "model"
        assert desk.asked()[0].json()["options"]["num_ctx"] == 8192
        assert desk.fleet["a"].host.server.loads_begun == 1


def _switch(system: System, *, enabled: bool) -> None:
    section = AiStatusSection(enabled=enabled, model="tiny")
    apply(system.config_ref, system.membership, system.config.model_copy(update={"ai_status": section}))


async def test_it_loses_against_any_user(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1, models=MODELS) as fleet, trio.open_nursery() as nursery:
        order: list[str] = []

        async def ask(name: str, call: Any) -> None:
            await fleet.system.exchange(call, Client())
            order.append(name)

        ours = StatusModel(fleet.system.watched_fleet, fleet.system.exchange).call(
            TINY, ServerId("a"), FINE, fleet.system.status_writer.figures()
        )
        assert (ours.priority, ours.client) == (LOWEST_PRIORITY, OURSELVES)
        for name, call in (("first", chat(tokens=50)), ("ours", ours), ("user", chat()), ("low", chat(priority=-5))):
            nursery.start_soon(ask, name, call)
            await wait_all_tasks_blocked()
            await trio.sleep(0.1)
    assert order == ["first", "user", "low", "ours"]


async def test_it_gives_way_when_somebody_comes(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    slow = Profile(load_seconds=0.5, slots=1, tokens_per_second=10.0)
    async with writing(("a", slow), slots=1, status={**WITH_MODEL, "timeout": 600}) as desk:
        await trio.sleep(3)
        assert desk.fleet.system.in_flight == 1
        began = trio.current_time()
        client = Client()
        await desk.fleet.system.exchange(chat("tiny", tokens=2), client)
        assert client.complete
        assert trio.current_time() - began < 2.0, "the status would have taken 12"
        assert desk.asked()[0].client_left
        assert desk.latest.source == "rules"
        assert not [line for line in caplog.records if line.name == "fleet.ai_status"]
        desk.fleet.assert_nothing_left()


# ---- when it does not work


async def test_a_model_that_is_late_is_left(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with writing() as desk:
        desk.fleet["a"].host.faults.set("hang-before-headers")
        desk.judge.verdict = DOWN
        await trio.sleep(70)
        before = desk.latest
        assert before.source == "rules"
        await trio.sleep(5)
        assert desk.fleet.system.in_flight <= 1
        await trio.sleep(10)
        desk.fleet.assert_nothing_left()
        assert _said(caplog) == ["the AI status is put together by rules: model tiny: it took longer than 10 s"], (
            "said once, however often it happens"
        )


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("status:500:secret words", "its answer is of no use (status 500)"),
        ("refuse", "backend_unreachable"),
        ("reset-before-headers", "backend_broke"),
        ("garbage", "backend_broke"),
    ],
)
async def test_a_model_that_fails_leaves_it_to_the_rules(
    fault: str, why: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fleet("a", models=MODELS) as fleet:
        fleet["a"].host.faults.set(fault)
        author = StatusModel(fleet.system.watched_fleet, fleet.system.exchange)
        for _ in range(2):
            assert await author.write("tiny", 10.0, FINE, fleet.system.status_writer.figures()) == ""
        assert _said(caplog) == [f"the AI status is put together by rules: model tiny: {why}"]
        fleet.assert_nothing_left()


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.name == "fleet.ai_status"]


@pytest.mark.parametrize("model", ["missing", "::", "a b"])
async def test_a_model_that_nobody_has_is_said_once(
    model: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fleet("a", models=MODELS) as fleet:
        author = StatusModel(fleet.system.watched_fleet, fleet.system.exchange)
        for _ in range(3):
            assert await author.write(model, 10.0, FINE, fleet.system.status_writer.figures()) is None
        assert _said(caplog) == [f"the AI status is put together by rules: model {model}: no server has it"]
        assert not fleet["a"].host.seen("/api/generate")


async def test_a_server_that_was_not_looked_at_yet_may_have_it(caplog: pytest.LogCaptureFixture) -> None:
    async with open_fleet("a", models=MODELS) as fleet:
        fleet.cell("a").state.start_anew(0.0, "")
        assert (
            await StatusModel(fleet.system.watched_fleet, fleet.system.exchange).write(
                "tiny", 10.0, FINE, fleet.system.status_writer.figures()
            )
            is None
        )
        assert not _said(caplog)


async def test_an_endless_answer_is_not_taken(autojump_clock: MockClock) -> None:
    endless = Profile(load_seconds=0.1, slots=1, tokens_per_second=1e6)
    async with open_fleet(("a", endless), models=MODELS) as fleet:
        author = StatusModel(fleet.system.watched_fleet, fleet.system.exchange)
        make = author.call

        def longer(*arguments: Any) -> Any:
            call = make(*arguments)
            call.body = call.body.replace(b'"num_predict":120', b'"num_predict":40000')  # type: ignore[union-attr]
            return call

        author.call = longer  # type: ignore[assignment, method-assign]
        assert await author.write("tiny", 10.0, FINE, fleet.system.status_writer.figures()) == ""
        fleet.assert_nothing_left()


async def test_settings_act_at_once(autojump_clock: MockClock) -> None:
    async with writing(status={}) as desk:
        system = desk.fleet.system
        _switch(system, enabled=True)
        sources = [desk.latest.source]
        for enabled in (True, False):
            _switch(system, enabled=enabled)
            await trio.sleep(8)
            sources.append(desk.latest.source)
        assert sources == ["rules", "model", "rules"]


async def test_a_text_about_what_is_no_longer_so_is_not_waited_for(autojump_clock: MockClock) -> None:
    """Neither another verdict nor another setting waits for the model, which here takes a minute."""
    slow = Profile(load_seconds=0.5, slots=4, tokens_per_second=2.0)
    async with writing(("a", slow), status={**WITH_MODEL, "timeout": 600}) as desk:
        await trio.sleep(3)
        assert (desk.fleet.system.in_flight, desk.latest.level) == (1, "ok")
        desk.judge.verdict = DOWN
        await trio.sleep(1.5)
        assert (desk.fleet.system.in_flight, desk.latest.level, desk.latest.source) == (0, "crit", "rules")
        await trio.sleep(12)
        assert desk.fleet.system.in_flight == 1, "asked anew"
        system = desk.fleet.system
        _switch(system, enabled=False)
        await trio.sleep(0.5)
        desk.fleet.assert_nothing_left()


async def test_ending_it_in_the_middle_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK), models=MODELS, ai_status=WITH_MODEL) as fleet:
        with trio.move_on_after(3.0):
            await partial(fleet.system.status_writer.run)()
        assert fleet["a"].host.seen("/api/generate")
        await wait_all_tasks_blocked()
        fleet.assert_nothing_left()
