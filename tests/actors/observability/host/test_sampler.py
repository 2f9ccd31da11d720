"""When the machine is sampled, how old a sample may be, and what a driver that hangs or fails does to the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.observability.host.probe import Part, Probe, Thread
from actors.observability.host.sampler import HostWatch
from fleet.observability.host_sample import HostSample, Measured
from tests.kit.fleets.fleet import Fleet, open_fleet


class Calls(Thread):
    """A thread that is none: calls end at once, or, while `stuck`, not before they are told to. For virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []
        self.stuck = False
        self.hanging = False

    @property
    def busy(self) -> bool:
        return self.hanging

    async def __call__(self, call: Callable[[], Any]) -> Any:
        self.at.append(trio.current_time())
        if self.stuck:
            self.hanging = True
            await trio.sleep_forever()
        return call()


class Failing:
    def __init__(self) -> None:
        self.fails = True

    def __call__(self) -> Measured:
        if self.fails:
            raise OSError("no such device")
        return {"disk_percent": 50.0}


def memory() -> Measured:
    return {"memory_percent": 25.0}


@asynccontextmanager
async def watching(*parts: Part, **host: Any) -> AsyncIterator[tuple[Fleet, HostWatch]]:
    async with open_fleet(host=host) as fleet, trio.open_nursery() as nursery:
        watch = HostWatch(fleet.system.config_ref, fleet.system.clock, parts)
        nursery.start_soon(watch.run)
        yield fleet, watch
        nursery.cancel_scope.cancel()


def configure(fleet: Fleet, **host: Any) -> None:
    config = fleet.system.config
    fleet.system.config_ref.put(config.model_copy(update={"host": config.host.model_copy(update=host)}))


def seen(watch: HostWatch) -> HostSample:
    """The sample, which must be there."""
    assert watch.latest is not None
    return watch.latest


def gaps(moments: list[float]) -> list[float]:
    return [round(later - sooner, 3) for sooner, later in pairwise(moments)]


async def test_the_machine_is_sampled_at_the_interval_and_the_second_time_early(autojump_clock: MockClock) -> None:
    calls = Calls()
    async with watching(Part("memory", memory, calls), interval=5.0) as (fleet, watch):
        await trio.sleep(12)
        assert gaps(calls.at) == [1.0, 5.0, 5.0]
        assert (seen(watch).memory_percent, seen(watch).cpu_percent) == (25.0, None)
        assert fleet.system.clock.wall() - seen(watch).at < 60


async def test_interval_and_switch_are_followed_while_it_runs(autojump_clock: MockClock) -> None:
    calls = Calls()
    async with watching(Part("memory", memory, calls), interval=600.0) as (fleet, watch):
        await trio.sleep(10)
        assert len(calls.at) == 2
        configure(fleet, interval=2.0)
        await trio.sleep(8.5)
        assert 5 <= len(calls.at) <= 7
        configure(fleet, enabled=False)
        await trio.sleep(1.5)
        asked = len(calls.at)
        await trio.sleep(60)
        assert (watch.latest, len(calls.at)) == (None, asked)
        configure(fleet, enabled=True)
        await trio.sleep(2.5)
        assert seen(watch).memory_percent == 25.0


async def test_what_fails_is_asked_ever_more_rarely_and_the_rest_as_ever(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls, others, disk = Calls(), Calls(), Failing()
    parts = Part("disk", disk, calls), Part("memory", memory, others)
    async with watching(*parts, interval=5.0) as (_, watch):
        await trio.sleep(3600)
        assert gaps(calls.at)[1:6] == [10.0, 20.0, 40.0, 80.0, 160.0]
        assert max(gaps(calls.at)) <= 605.0
        assert max(gaps(others.at)) == 5.0
        assert (seen(watch).memory_percent, seen(watch).disk_percent) == (25.0, None)
        assert not [
            record for record in caplog.records if record.levelno > logging.DEBUG and record.name == "fleet.host"
        ]
        disk.fails = False
        await trio.sleep(606)
        before = len(calls.at)
        await trio.sleep(20)
        assert (len(calls.at) - before, seen(watch).disk_percent) == (4, 50.0)


async def test_one_line_in_the_log_says_that_something_is_gone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Failing()
    disk.fails = False
    async with watching(Part("disk", disk, Calls()), interval=5.0) as (_, watch):
        await trio.sleep(20)
        disk.fails = True
        await trio.sleep(600)
        assert seen(watch).disk_percent is None
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in said] == ["no figures of the machine's disk: OSError: no such device"]


async def test_a_call_that_hangs_is_dropped_and_not_made_again_until_it_ends(autojump_clock: MockClock) -> None:
    calls, others = Calls(), Calls()
    calls.stuck = True
    parts = Part("NVIDIA GPUs", Failing(), calls), Part("memory", memory, others)
    async with watching(*parts, interval=5.0, timeout=3.0) as (_, watch):
        await trio.sleep(3600)
        assert len(calls.at) == 1
        assert max(gaps(others.at)) == 5.0
        assert seen(watch).memory_percent == 25.0
        calls.stuck = calls.hanging = False
        await trio.sleep(6)
        assert len(calls.at) == 2


class Slow(Calls):
    """Each call takes as long as `takes` says. In virtual time."""

    takes = 0.0

    async def __call__(self, call: Callable[[], Any]) -> Any:
        self.at.append(trio.current_time())
        await trio.sleep(self.takes)
        return call()


async def test_nobody_waits_for_a_slow_driver_whose_figures_are_in_the_next_sample(autojump_clock: MockClock) -> None:
    calls, others, disk = Slow(), Calls(), Failing()
    calls.takes, disk.fails = 8.0, False
    parts = Part("disk", disk, calls), Part("memory", memory, others)
    async with watching(*parts, interval=2.0, timeout=60.0) as (_, watch):
        await trio.sleep(1.5)
        assert (seen(watch).memory_percent, seen(watch).disk_percent) == (25.0, None)
        await trio.sleep(60)
        assert max(gaps(others.at)) == 2.0
        assert 8.0 <= min(gaps(calls.at)) <= max(gaps(calls.at)) <= 10.0
        assert seen(watch).disk_percent == 50.0
        calls.takes = 50.0
        await trio.sleep(30)
        assert (seen(watch).memory_percent, seen(watch).disk_percent) == (25.0, None), "five intervals are too long"


async def test_a_sample_that_is_too_old_is_none(autojump_clock: MockClock) -> None:
    async with open_fleet(host={"interval": 5.0}) as fleet:
        watch = HostWatch(fleet.system.config_ref, fleet.system.clock, [Part("memory", memory, Calls())])
        with trio.move_on_after(12):
            await watch.run()
        await trio.sleep(20)
        assert seen(watch).memory_percent == 25.0
        await trio.sleep(7)
        assert watch.latest is None


class Hanging:
    """A driver that does not return before it is let go. In a real thread."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = threading.Event()

    def __call__(self) -> Measured:
        self.calls += 1
        self.go.wait(20)
        return {"disk_percent": 1.0}


async def test_real_threads_do_not_pile_up_behind_a_driver_that_hangs() -> None:
    """Nor does the event loop stand still, nor the end of the process wait."""
    driver, answered = Hanging(), 0

    def answer() -> Measured:
        nonlocal answered
        answered += 1
        return {"memory_percent": 25.0}

    probes: list[tuple[str, Probe]] = [("GPUs", driver), ("memory", answer)]
    parts = [Part(name, probe) for name, probe in probes]
    with trio.fail_after(60):
        async with watching(*parts, interval=0.1, timeout=0.05) as (_, watch):
            while answered < 5:
                await trio.sleep(0.01)
            assert driver.calls == 1
            assert not parts[0].due
            assert (seen(watch).memory_percent, seen(watch).disk_percent) == (25.0, None)
            driver.go.set()
            while driver.calls < 2 or seen(watch).disk_percent is None:
                await trio.sleep(0.01)
    assert driver.calls >= 2


async def test_the_real_machine_has_processors_memory_and_a_disk() -> None:
    with trio.fail_after(60):
        async with open_fleet(host={"interval": 0.1}) as fleet, trio.open_nursery() as nursery:
            watch = fleet.system.host
            nursery.start_soon(watch.run)
            while watch.latest is None or watch.latest.cpu_percent is None:
                await trio.sleep(0.02)
            sample = watch.latest
            nursery.cancel_scope.cancel()
    assert 0 <= (sample.cpu_percent or 0) <= 100
    assert sample.memory_percent is not None
    assert sample.disk_percent is not None
    assert sample.memory_available is not None
