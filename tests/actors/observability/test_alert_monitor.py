"""The monitor over real actors and virtual time: what it sees, what it says, what survives a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.supervisor import keep_up
from actors.observability.alert_monitor import SOON, THOROUGH
from actors.observability.fleet_facts import MOST_MODELS, served_by
from actors.state.messages import RequestRecord
from bench.growth.measure import MOST, Case, grown
from fleet.breakers.gate import Gate, GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.alerting.rules import BY_NAME
from fleet.observability.host_sample import HostSample
from fleet.scheduling.server_state import Health, Order
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet
from tests.kit.fleets.store import FakeDisk, journal_on

HOLD = BY_NAME["FleetServerDown"].hold
EPOCH = 1_795_000_000.0
PAIR = Pair(ServerId("a"), ModelName("m:latest"))


@pytest.fixture(autouse=True)
def _wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.kit.clock.time.time", lambda: EPOCH + trio.current_time())


@asynccontextmanager
async def watched(*servers: str | tuple[str, Profile], **config: Any) -> AsyncIterator[Fleet]:
    """A fleet whose monitor runs."""
    async with open_fleet(*servers, **config) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(fleet.system.monitor.run)
        await trio.sleep(0.5)
        yield fleet
        nursery.cancel_scope.cancel()


def verdict(fleet: Fleet) -> tuple[str, str]:
    return fleet.system.monitor.verdict.code, fleet.system.monitor.verdict.headline


def firing(fleet: Fleet) -> list[tuple[str, dict[str, str]]]:
    return [(alert.rule, dict(alert.subject)) for alert in fleet.system.monitor.alerts.firing]


async def test_a_server_that_dies_is_in_the_verdict_then_fires_and_recovery_resolves_it(
    autojump_clock: MockClock,
) -> None:
    async with watched("a", "b", "c", "d", health={"interval": 5.0}) as fleet:
        assert verdict(fleet) == ("healthy", "All 4 servers healthy, no requests in the last minute")
        fleet["b"].kill()
        await trio.sleep(30)
        assert verdict(fleet)[0] == "server_down"
        assert "b: " in verdict(fleet)[1]
        assert "b" not in fleet.system.monitor.verdict.plain.split()
        assert firing(fleet) == []
        await trio.sleep(HOLD)
        assert firing(fleet) == [("FleetServerDown", {"server": "b"})]
        (alert,) = fleet.system.monitor.alerts.firing
        state = fleet.cell("b").state
        assert alert.since == pytest.approx(EPOCH + state.since) == fleet.system.monitor.verdict.since
        fleet["b"].restart()
        await fleet.system.probe(ServerId("b"), 10.0)
        await trio.sleep(5)
        assert verdict(fleet)[0] == "healthy"
        await trio.sleep(BY_NAME["FleetServerDown"].keep_firing)
        assert firing(fleet) == []
        assert [each.state for each in fleet.system.monitor.alerts.history] == ["resolved"]


async def test_a_server_in_maintenance_is_planned_and_fires_nothing(autojump_clock: MockClock) -> None:
    async with watched("a", "b") as fleet:
        fleet["b"].kill()
        fleet.system.order(ServerId("b"), Order.MAINTAIN, "new disks")
        await trio.sleep(2 * HOLD)
        assert verdict(fleet) == ("planned", "1 server in maintenance, 1 serving")
        assert firing(fleet) == []


async def test_a_server_put_back_dead_is_down_since_then_and_gets_its_time(autojump_clock: MockClock) -> None:
    async with watched("a", "b", health={"interval": 5.0}) as fleet:
        fleet["b"].kill()
        fleet.system.order(ServerId("b"), Order.MAINTAIN, "new disks")
        await trio.sleep(5 * HOLD)
        fleet.system.order(ServerId("b"), Order.ACTIVATE, "done")
        back = EPOCH + trio.current_time()
        await trio.sleep(HOLD / 2)
        assert firing(fleet) == []
        assert verdict(fleet)[0] == "server_down"
        assert fleet.system.monitor.verdict.since == pytest.approx(back, abs=1)
        await trio.sleep(HOLD)
        assert firing(fleet) == [("FleetServerDown", {"server": "b"})]


async def test_an_alert_ends_with_its_server(autojump_clock: MockClock) -> None:
    async with watched("a", "b", health={"interval": 5.0}) as fleet:
        fleet["b"].kill()
        await trio.sleep(HOLD + 60)
        assert len(firing(fleet)) == 1
        await fleet.system.remove_server(ServerId("b"), drain=False)
        await trio.sleep(BY_NAME["FleetServerDown"].keep_firing + 5)
        assert firing(fleet) == []
        assert verdict(fleet)[0] == "healthy"


async def test_the_verdict_of_the_start_does_not_outlast_the_first_probes(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet, trio.open_nursery() as nursery:
        states = [fleet.cell(name).state for name in "ab"]
        for state in states:
            state.start_anew(trio.current_time(), "not probed yet")
        nursery.start_soon(fleet.system.monitor.run)
        await trio.sleep(1.05)
        assert verdict(fleet)[0] == "starting"
        for state in states:
            state.judge(Health.HEALTHY, trio.current_time(), "answers probes")
        await trio.sleep(2 * SOON)
        assert verdict(fleet)[0] == "healthy"
        nursery.cancel_scope.cancel()


async def test_names_that_no_server_has_push_out_no_model_without_a_route(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        look = fleet.system.monitor._look
        for n in range(20 * MOST_MODELS):
            look.counts.asked[ModelName(f"invented-{n}")] = trio.current_time()
        look.counts.asked[PAIR.model] = trio.current_time()
        for name in "ab":
            fleet.cell(name).state.barred.add(PAIR.model)
        assert [fact.model for fact in look.quick().unservable] == [PAIR.model]


async def test_an_open_breaker_that_is_forced_or_released_is_told_so(autojump_clock: MockClock) -> None:
    async with watched("a", "b") as fleet:
        for _ in range(3):
            fleet.system.breakers.record(PAIR, Signal.FAILURE, "refused_500")
        await trio.sleep(2)
        (before,) = fleet.system.monitor.evaluate().breakers
        assert fleet.system.breakers.force(PAIR, BreakerState.OPEN, "ana") is not None
        await wait_all_tasks_blocked()
        await trio.sleep(THOROUGH + 1)
        (after,) = fleet.system.monitor.evaluate().breakers
        assert (before.forced, after.forced) == (False, True)
        assert before.since == after.since


async def test_a_model_that_is_asked_for_and_has_no_route_is_named(autojump_clock: MockClock) -> None:
    async with watched("a", "b", queue={"no_server_grace": 0.5}) as fleet:
        await fleet.system.exchange(chat("m"), Client())
        for server in "ab":  # by order: of those that open by themselves the last would be tried
            fleet.system.breakers.force(Pair(ServerId(server), PAIR.model), BreakerState.OPEN, "ada")
        await wait_all_tasks_blocked()
        await trio.sleep(5)
        assert verdict(fleet) == (
            "model_unservable",
            "m:latest cannot be served: its 2 servers are down, out of service or behind a breaker",
        )
        facts = fleet.system.monitor.evaluate()
        assert {fact.pair.server for fact in facts.breakers} == {"a", "b"}
        assert all(facts.now - fact.since < 10 for fact in facts.breakers)
        await trio.sleep(60)
        assert ("FleetModelUnservable", {"model": "m:latest"}) in firing(fleet)


async def test_failed_requests_are_the_verdict_with_who_failed_them(autojump_clock: MockClock) -> None:
    async with watched("a", alerts={"error_requests": 5}, retry={"max_attempts": 1}) as fleet:
        fleet["a"].host.faults.set("status:500:oops")
        for _ in range(6):
            await fleet.system.exchange(chat("m"), Client())
        await trio.sleep(THOROUGH + 3)
        assert verdict(fleet) == ("errors", "100% of requests failed in 5 minutes, mostly a answers 500 (m:latest)")
        assert fleet.system.monitor.verdict.plain == "100% of requests failed in 5 minutes: answers 500"
        await trio.sleep(130)
        assert ("FleetErrorBudgetBurnFast", {}) in firing(fleet)


async def test_errors_stop_being_told_when_the_fault_has_stopped(autojump_clock: MockClock) -> None:
    async with watched("a", alerts={"error_requests": 5}, retry={"max_attempts": 1}) as fleet:
        fleet["a"].host.faults.set("status:500:oops")
        for _ in range(30):
            await fleet.system.exchange(chat("m"), Client())
        await trio.sleep(150)
        assert verdict(fleet)[0] == "errors"
        assert ("FleetErrorBudgetBurnFast", {}) in firing(fleet)
        fleet["a"].host.faults.set()
        for _ in range(3):
            await fleet.system.exchange(chat("m"), Client())
        await trio.sleep(THOROUGH + 5)
        assert verdict(fleet)[0] == "healthy", "five minutes are not over"
        await trio.sleep(61)
        assert ("FleetErrorBudgetBurnFast", {}) not in firing(fleet)


async def test_records_are_dropped_since_the_first_of_a_run_was(autojump_clock: MockClock) -> None:
    async with watched("a") as fleet:
        recorder = fleet.system.statistics.request_log
        one = RequestRecord("r", "e", "m", "", "", "ok", 200, 1, 0.0, None, 0.0, 0, None, None, True)
        began = trio.current_time()
        for _ in range(4):
            for _ in range(5000):  # too many, in one turn
                recorder.append(one)
            recorder.flush()
            await trio.sleep(400)
        facts = fleet.system.monitor.evaluate()
        assert facts.dropped is not None
        assert facts.dropped.since == began


async def test_a_queue_that_does_not_move_is_told_with_the_model_that_is_wanted(autojump_clock: MockClock) -> None:
    slow = Profile(load_seconds=0.0, slots=1, tokens_per_second=1.0)
    async with watched(("a", slow), slots=1) as fleet, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fleet.system.exchange, chat("m", tokens=60), Client())
            await wait_all_tasks_blocked()
        await trio.sleep(14)
        code, headline = verdict(fleet)
        assert code == "saturated"
        assert headline.startswith("queue 2, oldest waits 1")
        assert headline.endswith(": the only slot for m:latest is taken")
        nursery.cancel_scope.cancel()


async def test_pause_reload_store_host_and_dropped_records_are_seen(autojump_clock: MockClock) -> None:
    async with watched("a") as fleet:
        cell = fleet.system
        fleet.system.orders.pause(True, "ana")
        await wait_all_tasks_blocked()
        fleet.system.config_ref.reloads.fail(EPOCH, "servers: bad", again=False)
        cell.journal.standing.state, cell.journal.standing.why = "degraded", "disk full"
        cell.statistics.request_log.dropped, cell.statistics.request_log.dropped_at = 7, trio.current_time()
        fleet.system.host.latest = HostSample(EPOCH, cpu_percent=99.0)
        facts = fleet.system.monitor.evaluate()
        assert (facts.queue.paused, facts.queue.paused_by) == (True, "ana")
        assert facts.reload is not None
        assert facts.reload.since == pytest.approx(0.0)
        assert facts.reload.text == "servers: bad"
        assert facts.store is not None
        assert facts.store.text == "disk full"
        assert facts.dropped is not None
        assert facts.dropped.number == 7
        assert facts.host is fleet.system.host.latest
        await trio.sleep(3)
        assert verdict(fleet)[0] == "queue_paused"
        await trio.sleep(700)
        assert fleet.system.monitor.evaluate().dropped is None
        named = {rule for rule, _ in firing(fleet)}
        assert named == {"FleetConfigReloadFailed", "FleetStoreDegraded"}


async def test_switched_off_there_are_no_alerts_and_the_verdict_stays(autojump_clock: MockClock) -> None:
    async with watched("a", "b", alerts={"enabled": False}) as fleet:
        fleet["b"].kill()
        await trio.sleep(2 * HOLD)
        assert firing(fleet) == []
        assert verdict(fleet)[0] == "server_down"


async def test_a_fleet_without_servers_says_what_to_do(autojump_clock: MockClock) -> None:
    async with watched() as fleet:
        assert fleet.system.monitor.verdict.line == "○ nothing to serve yet: add a server"
        await trio.sleep(300)
        assert firing(fleet) == []


async def test_silences_survive_a_restart_until_their_end(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    for round_ in range(3):
        journal, store = journal_on(disk)
        async with open_fleet("a", journal=journal) as fleet:
            monitor = fleet.system.monitor
            if round_ == 0:
                for seconds in (60.0, 6_000.0):
                    assert monitor.silence("FleetServerDown", {"server": "a"}, monitor_at() + seconds, "ana", "move")
            held = [(each.rule, dict(each.subject), each.by, each.why) for each in monitor.alerts.silences]
            assert held == [("FleetServerDown", {"server": "a"}, "ana", "move")] * (2 if round_ < 2 else 1)
            await trio.sleep(20 if round_ == 0 else 60)
            assert await journal.kept(1.0)
        await store.finish()


def monitor_at() -> float:
    return EPOCH + trio.current_time()


async def test_a_kept_silence_that_makes_no_sense_is_left_out(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    disk.documents["silence", "s-1"] = {"rule": 3}
    far = {"rule": "FleetServerDown", "subject": {}, "by": "", "why": "", "at": 0.0, "until": 9e18}
    disk.documents["silence", "s-2"] = far
    journal, store = journal_on(disk)
    async with open_fleet("a", journal=journal) as fleet:
        assert len(fleet.system.monitor.alerts.silences) == 0
    await store.finish()


async def test_a_monitor_that_crashes_goes_on_with_its_alerts(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors += ["actor monitor crashed", "actor monitor is given up"]
    async with open_fleet("a", "b", health={"interval": 5.0}) as fleet, trio.open_nursery() as nursery:
        monitor = fleet.system.monitor
        nursery.start_soon(keep_up, "monitor", monitor.run)
        fleet["b"].kill()
        await trio.sleep(HOLD + 60)
        (before,) = monitor.alerts.firing
        judging = monitor._judge.judge
        monkeypatch.setattr(monitor._judge, "judge", lambda seen: 1 / 0)
        await trio.sleep(1.5)
        monkeypatch.setattr(monitor._judge, "judge", judging)
        await trio.sleep(60)
        (after,) = monitor.alerts.firing
        assert (after.id, after.seq) == (before.id, before.seq)
        fleet["b"].restart()
        await fleet.system.probe(ServerId("b"), 10.0)
        await trio.sleep(100)
        assert monitor.alerts.firing == []
        assert monitor.verdict.code == "healthy"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("gate", [None, *GateState])
@pytest.mark.parametrize("model", ["m:latest", "stranger"])
@pytest.mark.parametrize("barred", [False, True])
async def test_the_monitor_and_the_router_agree_on_what_is_routable(
    autojump_clock: MockClock, gate: GateState | None, model: str, barred: bool
) -> None:
    async with open_fleet("a") as fleet:
        state, name = fleet.cell("a").state, ModelName(model)
        if gate is not None:
            state.gates[name] = Gate(gate)
        state.barred |= {name} if barred else set()
        assert (name in served_by([state])) is state.routable(name)


async def test_a_look_at_twice_the_models_takes_twice_the_time(autojump_clock: MockClock) -> None:
    """Eight hundred pairs, most models asked for; with each held against all others it would be four times the time."""
    looks = {}
    async with AsyncExitStack() as stack:
        for count in (20, 40):
            models = ",".join(f"m{n}:latest:1GB" for n in range(count))
            fleet = await stack.enter_async_context(open_fleet(*(f"s{n}" for n in range(20)), models=models))
            monitor = looks[count] = fleet.system.monitor
            for n in range(count):
                monitor._look.counts.asked[ModelName(f"m{n}:latest")] = trio.current_time()
        growth = grown(Case("pairs", 20, looks.__getitem__, lambda monitor: monitor.evaluate()))
    assert growth.ratio <= MOST, growth
