"""Jobs and the roster: each test is named after what once went wrong."""

from __future__ import annotations

import ssl
import time
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.requests.pull_stream import Records
from actors.storage.journal import Document, Journal
from actors.upstream.control_client import OllamaClient
from actors.upstream.pool import UpstreamResponse
from bench.growth.measure import MOST, Case, grown
from fleet.common.errors import TooManyJobs
from fleet.common.ids import ServerId
from fleet.config import ServerSpec
from fleet.models.jobs import JobKind, JobState
from fleet.scheduling.server_state import Admin, Health
from fleet.simulator import Profile
from tests.actors.jobs.test_job_board import QUIET
from tests.actors.jobs.test_jobs_kept import Store, process
from tests.kit.fleets.backends import FakeBackend
from tests.kit.fleets.fleet import open_fleet

A, B = ServerId("a"), ServerId("b")
SLOW = Profile(load_seconds=20.0, slots=4, pull_seconds=100.0)
PULL, COPY, WARM, UNLOAD, DELETE = JobKind


# ---- jobs


async def test_a_job_that_ended_on_the_machine_of_an_earlier_url_was_called_a_success(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_fleet(("a", SLOW)) as fleet:
        job = fleet.system.jobs.start(PULL, A, "new")
        await trio.sleep(10.0)
        machines = cast(dict[str, FakeBackend], fleet.memory.backends)
        machines["a"] = FakeBackend(nursery, "m:latest:1GB", SLOW, id="a2")
        spec = fleet.cell("a").state.spec
        fleet.system.change_server(spec.model_copy(update={"url": "http://elsewhere.internal:11434"}))
        assert await job.wait(300.0)
        assert "new:latest" not in fleet.cell("a").state.models
        assert job.state is JobState.FAILED
        assert "URL" in (job.error or "")


async def test_a_job_queued_for_a_removed_server_ran_on_the_next_one_of_that_name(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), jobs={"per_server": 1}) as fleet:
        jobs = fleet.system.jobs
        jobs.start(PULL, A, "new")
        waiting = jobs.start(DELETE, A, "m")
        await trio.sleep(5.0)
        spec = fleet.cell("a").state.spec
        await fleet.system.remove_server(A, drain=False)
        fleet.system.add_server(spec)
        assert await waiting.wait(60.0)
        assert waiting.state is JobState.FAILED
        assert not fleet["a"].host.seen("/api/delete")


async def test_a_warm_up_with_other_options_was_taken_for_the_one_under_way(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW)) as fleet:
        jobs = fleet.system.jobs
        first = jobs.start(WARM, A, "m", options={"runner": {"num_ctx": 2048}})
        other = jobs.start(WARM, A, "m", options={"runner": {"num_ctx": 8192}})
        assert other is not first
        assert jobs.start(WARM, A, "M:latest", options={"runner": {"num_ctx": 8192}}) is other
        assert await other.wait(100.0)
        assert (first.state, other.state) == (JobState.DONE, JobState.DONE)
        assert fleet.cell("a").state.resident["m:latest"]["context_length"] == 8192


async def test_what_was_done_already_was_called_cancelled(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), health=QUIET) as fleet:
        fleet["a"].host.faults.set(
            "all:hang-before-headers,paths=/api/tags"
        )  # so that the last look at it takes a while
        job = fleet.system.jobs.start(DELETE, A, "m")
        while not fleet["a"].host.seen("/api/delete"):
            await trio.sleep(0.01)
        await trio.sleep(0.5)
        assert not job.state.ended
        fleet.system.jobs.cancel(job.id)
        assert job.state is JobState.DONE


async def test_a_deletion_that_was_done_before_the_restart_was_called_a_failure(autojump_clock: MockClock) -> None:
    store = Store()
    async with process(store, "a") as system:
        system.jobs.start(DELETE, A, "gone")
        store.write()
    async with process(Store(store.kept), "a") as system:
        (job,) = system.jobs.all()
        assert await job.wait(30.0)
        assert (job.state, job.error) == (JobState.DONE, None)


async def test_a_server_that_was_not_probed_yet_took_any_number_of_jobs(autojump_clock: MockClock) -> None:
    async with open_fleet("a", jobs={"waiting": 2}) as fleet:
        fleet.cell("a").state.health = Health.UNKNOWN
        for name in "xy":
            fleet.system.jobs.start(PULL, A, name)
        with pytest.raises(TooManyJobs):
            fleet.system.jobs.start(PULL, A, "z")


class _Heap:
    """A response whose body has come in one piece."""

    complete = False

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def receive(self) -> bytes:
        body, self._body, self.complete = self._body, b"", True
        return body


def test_a_server_that_sends_nothing_but_line_ends_held_up_everybody() -> None:
    async def read(body: bytes) -> None:
        async for record in Records(cast(UpstreamResponse, _Heap(body))):
            assert record == {"status": "success"}

    def ends(lines: int) -> bytes:
        return b"\n" * lines + b'{"status": "success"}\n'

    growth = grown(Case("line ends", 250_000, ends, lambda body: trio.run(read, body)))
    assert growth.ratio <= MOST, growth


# ---- servers


async def test_a_new_server_inherited_the_drain_of_a_forgotten_one_of_its_name(autojump_clock: MockClock) -> None:
    order = {"admin": "drained", "why": "old", "by": "ann", "since": 1.0, "until": None}
    journal = Journal({"admin": {"b": order}})
    journal.attached = True
    async with open_fleet("a", "b", journal=Journal({})) as fleet:
        spec = fleet.cell("b").state.spec
    async with open_fleet("a", journal=journal) as fleet:
        assert ("admin", "b") in journal.touched  # what belongs to a server in no list is forgotten
        fleet.memory.backends = {**fleet.memory.backends, "b": fleet["a"]}
        cell = fleet.system.add_server(spec)
        assert cell.state.admin is Admin.ACTIVE


async def test_half_of_an_order_that_could_not_be_read_was_obeyed(autojump_clock: MockClock) -> None:
    kept: dict[str, dict[str, Document]] = {"admin": {"a": {"admin": "drained", "why": "x", "by": "y", "since": "?"}}}
    async with open_fleet("a", journal=Journal(kept)) as fleet:
        assert fleet.cell("a").state.admin is Admin.ACTIVE


async def test_every_server_was_written_anew_whenever_one_was_added(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        journal = fleet.system.journal
        journal.attached = True
        spec = fleet.cell("b").state.spec
        fleet.memory.backends = {**fleet.memory.backends, "c": fleet["b"]}
        fleet.system.add_server(ServerSpec.model_validate({"id": "c", "url": "http://c.internal:1"}))
        assert [key for kind, key in journal.touched if kind == "server"] == ["c"]
        journal.touched.clear()
        fleet.system.change_server(spec.model_copy(update={"priority": 3}))
        await fleet.system.remove_server(A)
        await wait_all_tasks_blocked()
        assert [key for kind, key in journal.touched if kind == "server"] == ["b", "a"]


async def test_every_new_server_stopped_the_fleet_for_a_dozen_milliseconds() -> None:
    """It read the authorities that TLS trusts, each time."""
    specs = [ServerSpec.model_validate({"id": f"s{n}", "url": f"http://10.0.0.{n}:1"}) for n in range(1, 200)]
    began = time.thread_time()
    for _ in range(5):
        ssl.create_default_context()
    to_read_them = (time.thread_time() - began) / 5
    began = time.thread_time()
    clients = [OllamaClient(spec) for spec in specs]
    assert (time.thread_time() - began) / len(clients) < to_read_them / 2
    for client in clients:
        await client.aclose()
