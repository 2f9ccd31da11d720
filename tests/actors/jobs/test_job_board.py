"""Jobs of a running fleet, on virtual time: what they do, limits, turns, ends."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.jobs import job_kinds
from actors.jobs.job import Job
from fleet.common.errors import (
    BackendUnreachable,
    BadRequest,
    FirstByteTimeout,
    JobFailed,
    JobNotFound,
    ModelNotFound,
    NoServer,
    ServerNotFound,
    ShuttingDown,
    TooManyJobs,
)
from fleet.common.ids import ServerId
from fleet.models.jobs import JobKind, JobState
from fleet.scheduling.server_state import Admin, Health, Order
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

A, B = ServerId("a"), ServerId("b")
SLOW = Profile(load_seconds=20.0, slots=4, pull_seconds=100.0)
PULL, COPY, WARM, UNLOAD, DELETE = JobKind
QUIET = {"interval": 3600}
"""Nobody probes unless asked."""


def pull(fleet: Fleet, server: ServerId, model: str, **more: Any) -> Job:
    return fleet.system.jobs.start(PULL, server, model, **more)


def states(*jobs: Job) -> list[str]:
    return [job.state.value for job in jobs]


# ---- what they do


async def test_a_pull_brings_the_model_and_the_fleet_knows_it_at_the_end(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), health=QUIET) as fleet:
        job = pull(fleet, A, "New/Model:1B", by="ops")
        await trio.sleep(51.0)
        progress = job.progress
        assert (job.state, job.ended, progress.percent) == (JobState.RUNNING, None, 50.0)
        assert (progress.completed, progress.total) == (2_350_000_000, 4_700_000_000)
        assert progress.rate == pytest.approx(47e6, rel=0.2)
        assert progress.eta is not None
        assert await job.wait(100.0)
        assert (job.state, job.error, job.by, job.progress.percent) == (JobState.DONE, None, "ops", 100.0)
        assert job.progress.rate is None
        assert "new/model:1b" in fleet.cell("a").state.models
        (seen,) = [seen for seen in fleet["a"].host.requests if seen.path == "/api/pull"]
        assert orjson.loads(seen.body)["model"] == "New/Model:1B"
        fleet.assert_nothing_left()


async def test_a_refused_pull_fails_in_ollamas_words(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        job = pull(fleet, A, "missing")
        assert await job.wait(5.0)
        assert (job.state, job.error) == (JobState.FAILED, "pull model manifest: file does not exist")
        assert type(job.failure) is JobFailed


async def test_a_dead_server_fails_a_job_soon(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet["a"].kill()
        jobs = [fleet.system.jobs.start(kind, A, f"m{kind.value}") for kind in (PULL, UNLOAD, DELETE)]
        began = trio.current_time()
        for job in jobs:
            assert await job.wait(60.0)
            assert isinstance(job.failure, BackendUnreachable)
        assert trio.current_time() - began < 30.0


@pytest.mark.parametrize("kind", [PULL, WARM, DELETE, UNLOAD])
async def test_a_server_that_never_answers_does_not_hold_a_job_for_ever(
    kind: JobKind, autojump_clock: MockClock
) -> None:
    async with open_fleet("a", timeouts={"first_byte": 30.0}, jobs={"load_timeout": 40.0}) as fleet:
        paths = "paths=/api/pull|/api/generate|/api/delete"
        fleet["a"].host.faults.set(f"all:hang-before-headers,{paths}")
        job = fleet.system.jobs.start(kind, A, "m")
        assert await job.wait(120.0)
        assert job.state is JobState.FAILED
        fleet.assert_nothing_left()


async def test_a_pull_that_falls_silent_is_ended(autojump_clock: MockClock) -> None:
    async with open_fleet("a", timeouts={"first_byte": 30.0}) as fleet:
        fleet["a"].host.faults.set("all:stall-mid-stream:1,paths=/api/pull")
        job = pull(fleet, A, "new")
        assert await job.wait(60.0)
        assert job.error is not None
        assert "stood still" in job.error


async def test_a_slow_pull_that_moves_is_left_alone(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), timeouts={"first_byte": 30.0}) as fleet:
        job = pull(fleet, A, "new")  # a record every 25 s
        assert await job.wait(200.0)
        assert states(job) == ["done"]


async def test_a_load_may_take_longer_than_an_answer(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), timeouts={"first_byte": 5.0}) as fleet:
        job = fleet.system.jobs.start(WARM, A, "m")
        assert await job.wait(60.0)
        assert states(job) == ["done"]


async def test_a_short_errand_has_an_end_even_if_the_server_drips(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(model: str, **_: Any) -> Any:
        await trio.sleep_forever()

    async with open_fleet("a") as fleet:
        monkeypatch.setattr(fleet.cell("a").client, "unload", never)
        job = fleet.system.jobs.start(UNLOAD, A, "m")
        assert await job.wait(70.0)
        assert type(job.failure) is FirstByteTimeout


async def test_a_model_that_only_embeds_without_saying_so_is_warmed_all_the_same(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=QUIET) as fleet:
        fleet["a"].host.faults.set("all:status:400:does not support generate,paths=/api/generate")
        job = fleet.system.jobs.start(WARM, A, "m")
        assert await job.wait(60.0)
        assert states(job) == ["done"]
        assert "m:latest" in fleet.cell("a").state.resident
        sure = fleet.system.jobs.start(WARM, A, "n", options={"embedding": False})
        assert await sure.wait(60.0)
        assert (sure.state, sure.error) == (JobState.FAILED, "does not support generate")


async def test_warming_loads_with_the_options_given_and_takes_no_slot(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), slots=1, health=QUIET) as fleet:
        runner = {"num_ctx": 1024, "shift": False}
        job = fleet.system.jobs.start(WARM, A, "m", options={"runner": runner, "keep_alive": -1})
        await trio.sleep(1.0)
        assert (job.state, fleet.system.in_flight, fleet.cell("a").state.in_use) == (JobState.RUNNING, 0, 0)
        assert await job.wait(60.0)
        assert job.state is JobState.DONE
        assert job.load_seconds == pytest.approx(20.0, abs=0.1)
        assert fleet.cell("a").state.resident["m:latest"]["context_length"] == 1024
        (loaded,) = fleet["a"].host.server.runners.values()
        assert (loaded.options.shift, loaded.keep_alive) == (False, math.inf)


async def test_an_embedding_model_is_warmed_by_embedding_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet("a", models="nomic-embed-text:latest:274MB") as fleet:
        job = fleet.system.jobs.start(WARM, A, "nomic-embed-text")
        assert await job.wait(60.0)
        assert "nomic-embed-text:latest" in fleet.cell("a").state.resident
        paths = [seen.path for seen in fleet["a"].host.requests]
        assert ("/api/embed" in paths, "/api/generate" in paths) == (True, False)


async def test_a_load_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), jobs={"load_timeout": 5.0}) as fleet:
        began = trio.current_time()
        job = fleet.system.jobs.start(WARM, A, "m")
        assert await job.wait(60.0)
        assert job.state is JobState.FAILED
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.1)
        await wait_all_tasks_blocked()
        assert fleet["a"].host.server.loading is None


@pytest.mark.parametrize("order", [Order.DRAIN, Order.MAINTAIN])
async def test_a_server_without_traffic_is_not_warmed_but_may_be_filled(
    order: Order, autojump_clock: MockClock
) -> None:
    async with open_fleet("a") as fleet:
        fleet.cell("a").state.order(order, trio.current_time(), "work")
        warm, fill = fleet.system.jobs.start(WARM, A, "m"), pull(fleet, A, "new")
        assert await warm.wait(5.0)
        assert await fill.wait(5.0)
        assert states(warm, fill) == ["failed", "done"]
        assert isinstance(warm.failure, NoServer)
        assert "/api/generate" not in {seen.path for seen in fleet["a"].host.requests}


async def test_unload_and_delete_do_what_they_say(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=QUIET) as fleet:
        await fleet.system.exchange(chat(), Client())
        for kind in (UNLOAD, DELETE):
            job = fleet.system.jobs.start(kind, A, "M")
            assert await job.wait(5.0)
            assert states(job) == ["done"]
        assert ("m:latest" in fleet.cell("a").state.resident, "m:latest" in fleet.cell("a").state.models) == (0, 0)
        again = fleet.system.jobs.start(DELETE, A, "m")
        assert await again.wait(5.0)
        assert isinstance(again.failure, ModelNotFound)


# ---- whose turn


async def test_limits_of_a_server_and_of_the_fleet_hold(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), ("b", SLOW), jobs={"per_server": 2, "total": 3}) as fleet:
        jobs = [pull(fleet, server, f"x{n}") for n in range(4) for server in (A, B)]
        running: set[tuple[int, int]] = set()
        while any(not job.state.ended for job in jobs):
            active = [job.server for job in jobs if job.state is JobState.RUNNING]
            running.add((active.count(A), active.count(B)))
            await trio.sleep(10.0)
        assert states(*jobs) == ["done"] * 8
        assert max(a + b for a, b in running) == 3
        assert max(max(pair) for pair in running) == 2


async def test_a_higher_limit_counts_at_once(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), jobs={"per_server": 1}) as fleet:
        first, second = pull(fleet, A, "x"), pull(fleet, A, "y")
        await trio.sleep(5.0)
        assert states(first, second) == ["running", "queued"]
        more = fleet.system.config.jobs.model_copy(update={"per_server": 2})
        fleet.system.config_ref.put(fleet.system.config.model_copy(update={"jobs": more}))
        await trio.sleep(2.0)
        assert states(first, second) == ["running", "running"]


async def test_who_waits_goes_by_priority_then_age(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), jobs={"per_server": 1}) as fleet:
        jobs = {name: pull(fleet, A, name, priority=n) for name, n in [("r", 0), ("x", 0), ("y", 5), ("z", 5)]}
        pull(fleet, A, "X", priority=9)  # the same as x, which therefore goes first
        for job in jobs.values():
            assert await job.wait(1000.0)
        order = sorted(jobs, key=lambda name: jobs[name].started or 0.0)
        assert order == ["r", "x", "y", "z"]


async def test_the_same_thing_is_done_once(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), ("b", SLOW)) as fleet:
        job = pull(fleet, A, "New")
        assert pull(fleet, A, "new:latest") is job
        assert pull(fleet, B, "new") is not job
        assert fleet.system.jobs.start(WARM, A, "new") is not job
        assert await job.wait(200.0)
        assert pull(fleet, A, "new") is not job


async def test_a_deletion_waits_for_the_pull_of_the_same_model(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW)) as fleet:
        job, gone = pull(fleet, A, "new"), fleet.system.jobs.start(DELETE, A, "new")
        await trio.sleep(10.0)
        assert states(job, gone) == ["running", "queued"]
        assert await gone.wait(200.0)
        assert states(job, gone) == ["done", "done"]
        assert "new:latest" not in fleet.cell("a").state.models


async def test_too_many_are_refused_but_never_who_could_start(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), ("b", SLOW), jobs={"per_server": 1, "waiting": 2}) as fleet:
        for name in "xyz":
            pull(fleet, A, name)
        with pytest.raises(TooManyJobs):
            pull(fleet, A, "w")
        await wait_all_tasks_blocked()
        assert states(pull(fleet, B, "w")) == ["running"]
        assert len(fleet.system.jobs.all()) == 4


async def test_what_makes_no_sense_is_refused(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        jobs = fleet.system.jobs
        with pytest.raises(ServerNotFound):
            pull(fleet, ServerId("zzz"), "m")
        with pytest.raises(BadRequest):
            pull(fleet, A, "no such name!")
        for ask in (jobs.get, jobs.cancel):
            with pytest.raises(JobNotFound):
                ask("nope")
        fleet.system.drain()
        with pytest.raises(ShuttingDown):
            pull(fleet, A, "m")
        assert jobs.all() == []


async def test_lists_are_newest_first_and_old_ones_are_forgotten(autojump_clock: MockClock) -> None:
    async with open_fleet("a", jobs={"keep": 3}) as fleet:
        jobs = fleet.system.jobs
        for name in "vwxyz":
            assert await pull(fleet, A, name).wait(60.0)
        late = pull(fleet, A, "late")
        assert [job.model for job in jobs.all()] == ["late", "z", "y", "x"]
        assert (jobs.of(active=True), jobs.of(model="LATE:latest")) == ([late], [late])
        assert [job.model for job in jobs.of(PULL, A, active=False)] == ["z", "y", "x"]
        assert jobs.of(WARM) == jobs.of(server=B) == []


# ---- ends


async def test_a_waiting_and_a_running_job_are_cancelled(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), jobs={"per_server": 1}) as fleet:
        first, second, third = (pull(fleet, A, name) for name in "xyz")
        await trio.sleep(30.0)
        for job in (second, first):
            assert fleet.system.jobs.cancel(job.id, by="ops") is job
            assert (job.state, job.detail, await job.wait(0.0)) == (JobState.CANCELLED, "cancelled by ops", True)
        await trio.sleep(1.0)
        assert fleet.cell("a").pool.open_count == 1
        assert states(first, second, third) == ["cancelled", "cancelled", "running"]
        assert await third.wait(200.0)
        assert fleet.system.jobs.cancel(third.id).state is JobState.DONE
        fleet.assert_nothing_left()


async def test_who_stops_waiting_ends_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW)) as fleet:
        job = pull(fleet, A, "new")
        assert await job.wait(10.0) is False
        with trio.move_on_after(10.0):
            await job.wait(1000.0)
        assert states(job) == ["running"]
        assert await job.wait(200.0)
        assert states(job) == ["done"]


async def test_a_crash_of_one_job_takes_no_other_along(
    autojump_clock: MockClock, expected_errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(fleet: Any, cell: Any, job: Job) -> None:
        if job.model == "bad":
            raise RuntimeError("a bug")
        await job_kinds.work(fleet, cell, job)

    monkeypatch.setattr("actors.jobs.job_board.work", work)
    expected_errors.append("job crashed")
    async with open_fleet(("a", SLOW)) as fleet:
        good, bad = pull(fleet, A, "good"), pull(fleet, A, "bad")
        assert await bad.wait(1.0)
        assert (bad.state, bad.error) == (JobState.FAILED, "internal error")
        assert await good.wait(200.0)
        assert states(good, pull(fleet, A, "more")) == ["done", "running"]


@pytest.mark.parametrize("kind", [PULL, WARM])
async def test_a_removed_server_ends_its_jobs_and_no_others(kind: JobKind, autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), ("b", SLOW), jobs={"per_server": 1}) as fleet:
        first, second = (
            fleet.system.jobs.start(kind, A, name) for name in (("x", "y") if kind is PULL else ("m", "n"))
        )
        other = pull(fleet, B, "x")
        await trio.sleep(5.0)
        await fleet.system.remove_server(A, drain=False)
        assert await first.wait(5.0)
        assert await second.wait(5.0)
        assert await other.wait(200.0)
        assert states(first, second, other) == ["failed", "failed", "done"]
        fleet.assert_nothing_left()


async def test_a_job_does_not_begin_on_a_server_that_was_removed_in_that_very_moment(
    autojump_clock: MockClock,
) -> None:
    """Nobody would watch it any more: a server that hangs would keep it for ever."""
    async with open_fleet(("a", SLOW)) as fleet:
        job = pull(fleet, A, "new")
        cell = fleet.system.servers.pop(A)
        assert await job.wait(1.0)
        assert type(job.failure) is ServerNotFound
        assert not cell.transfers
        fleet.system.servers[A] = cell


async def test_a_removal_waits_for_the_job_that_runs(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), drain_timeout=600.0) as fleet:
        job = fleet.system.jobs.start(WARM, A, "m")
        await trio.sleep(1.0)
        await fleet.system.remove_server(A)
        assert await job.wait(5.0)
        assert states(job) == ["done"]


async def test_a_server_that_was_not_probed_yet_is_waited_for(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        state = fleet.cell("a").state
        state.health = Health.UNKNOWN
        job = fleet.system.jobs.start(WARM, A, "m")
        await wait_all_tasks_blocked()
        assert states(job) == ["queued"]
        state.health = Health.HEALTHY
        assert await job.wait(10.0)
        assert (states(job), state.admin) == (["done"], Admin.ACTIVE)
