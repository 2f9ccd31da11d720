"""Jobs that outlive the process, and what holds for jobs whatever happens."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.jobs.job import Job
from actors.storage.journal import Document, Journal
from actors.storage.writer import open_journal
from actors.system import System, open_system
from fleet.common.errors import JobNotFound, ServerNotFound, TooManyJobs
from fleet.common.ids import ServerId
from fleet.config import Config
from fleet.models.jobs import JobKind, JobState
from fleet.simulator import Profile
from tests.kit.fleets.backends import FakeBackend
from tests.kit.fleets.fleet import Fleet, MemoryBackends, open_fleet

A, B = ServerId("a"), ServerId("b")
SLOW = Profile(load_seconds=20.0, slots=4, pull_seconds=100.0)
PULL, COPY, WARM, UNLOAD, DELETE = JobKind
QUIET = {"interval": 3600}
"""Nobody probes unless asked."""


def pull(fleet: Fleet, server: ServerId, model: str, **more: Any) -> Job:
    return fleet.system.jobs.start(PULL, server, model, **more)


def states(*jobs: Job) -> list[str]:
    return [job.state.value for job in jobs]


# ---- after the process


class Store:
    """Keeps what the journal is told, at once, as a disk would."""

    def __init__(self, kept: dict[str, Document] | None = None) -> None:
        self.kept: dict[str, Document] = kept or {}
        self.journal = Journal({"job": self.kept})
        self.journal.attached = True

    def write(self) -> None:
        for kind, key in list(self.journal.touched):
            if kind != "job":
                continue
            document = self.journal.sources[kind](key)
            if document is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = orjson.loads(orjson.dumps(document))
        self.journal.touched.clear()


@asynccontextmanager
async def process(store: Store, *servers: str, **config: Any) -> AsyncIterator[System]:
    """A fleet that begins with what the store holds; killed at the end, unless it was drained."""
    async with trio.open_nursery() as nursery:
        backends = {name: FakeBackend(nursery, "m:latest:1GB", SLOW, id=name) for name in servers}
        specs = [{"id": name, "url": backend.url} for name, backend in backends.items()]
        full = Config.model_validate({"servers": specs, **config})
        async with open_system(full, backends=MemoryBackends(backends), seed=1, journal=store.journal) as system:
            for name in servers:
                await system.probe(ServerId(name), 10.0)
            yield system
        nursery.cancel_scope.cancel()


async def test_what_had_not_ended_is_queued_again_and_what_had_is_listed(autojump_clock: MockClock) -> None:
    store = Store()
    async with process(store, "a", jobs={"per_server": 2}) as system:
        done = system.jobs.start(DELETE, A, "m", by="ops")
        assert await done.wait(10.0)
        begun = system.jobs.start(PULL, A, "begun", by="ops", priority=3)
        system.jobs.start(PULL, A, "other")
        waits = system.jobs.start(WARM, A, "m", options={"keep_alive": 7})
        await trio.sleep(30.0)
        store.write()
        assert {doc["state"] for doc in store.kept.values()} == {"done", "running", "queued"}
    async with process(Store(store.kept), "a", jobs={"per_server": 2}) as system:
        again = {job.id: job for job in system.jobs.all()}
        assert [job.model for job in system.jobs.all()] == ["m", "other", "begun", "m"]
        old, pulled, warm = again[done.id], again[begun.id], again[waits.id]
        assert (old.state, old.by, old.kind, old.resumed) == (JobState.DONE, "ops", DELETE, False)
        assert (old.created, old.ended) == pytest.approx((done.created, done.ended), abs=1.0)
        assert (pulled.resumed, pulled.priority, pulled.by) == (True, 3, "ops")
        assert warm.options == {"keep_alive": 7}
        assert system.jobs.start(PULL, A, "begun") is pulled
        assert system.jobs.start(DELETE, A, "n").number > max(job.number for job in again.values())
        for job in (pulled, warm):
            assert await job.wait(500.0)
        assert states(pulled) == ["done"]


async def test_the_end_of_the_fleet_interrupts_and_fails_nothing(autojump_clock: MockClock) -> None:
    store = Store()
    async with process(store, "a", jobs={"per_server": 1}) as system:
        running, waits = system.jobs.start(PULL, A, "x"), system.jobs.start(PULL, A, "y")
        await trio.sleep(10.0)
        async with trio.open_nursery() as nursery:
            deadline = trio.current_time() + 5.0
            for job in (running, waits):
                nursery.start_soon(job.wait, 1000.0)
            await wait_all_tasks_blocked()
            system.drain()
            system.revoke_all("the fleet stops")
        assert trio.current_time() < deadline
        assert states(running, waits) == ["queued", "queued"]
        store.write()
    assert {doc["state"] for doc in store.kept.values()} == {"queued"}


async def test_a_resumed_job_waits_for_its_server_a_little(autojump_clock: MockClock) -> None:
    store = Store()
    async with process(store, "a", "b", jobs={"per_server": 1}) as system:
        for server in (A, B):
            system.jobs.start(PULL, server, "x")
        store.write()
    async with process(Store(store.kept), "a") as system:
        homeless, begun = system.jobs.of(server=B)[0], system.jobs.of(server=A)[0]
        await trio.sleep(5.0)
        assert states(homeless, begun) == ["queued", "running"]
        assert (homeless.detail, begun.resumed) == ("resumed after a restart", True)
        assert await homeless.wait(60.0)
        assert (homeless.state, type(homeless.failure)) == (JobState.FAILED, ServerNotFound)


async def test_a_job_survives_in_the_real_store(tmp_path: Path) -> None:
    """Real time: a thread writes."""
    journal, store = await open_journal(tmp_path / "fleet.db", 10, time.time)
    assert store is not None
    async with open_fleet(("a", SLOW), journal=journal) as fleet:
        pull(fleet, A, "New/Model:1B", by="ops", priority=2)
        assert await journal.kept(10.0)
    await store.finish()
    journal, store = await open_journal(tmp_path / "fleet.db", 10, time.time)
    assert store is not None
    async with open_fleet(("a", Profile(pull_seconds=0.1)), journal=journal) as fleet:
        (job,) = fleet.system.jobs.all()
        assert (job.model, job.by, job.priority, job.resumed) == ("New/Model:1B", "ops", 2, True)
        assert await job.wait(10.0)
        assert states(job) == ["done"]
    await store.finish()
    journal, store = await open_journal(tmp_path / "fleet.db", 10, time.time)
    assert store is not None
    assert [kept["state"] for kept in journal.stored["job"].values()] == ["done"]
    await store.finish()


GOOD: Document = {
    "id": "k",
    "number": 7,
    "kind": "pull",
    "server": "a",
    "model": "m",
    "by": "ops",
    "priority": 0,
    "options": {},
    "state": "done",
    "created": 1.7e9,
    "started": 1.7e9,
    "ended": 1.7e9,
    "error": None,
    "detail": "success",
    "completed": 50,
    "total": 100,
    "load_seconds": None,
    "resumed": False,
}
NONSENSE: list[Any] = [
    None,
    [],
    {},
    *({key: value for key, value in GOOD.items() if key != missing} for missing in sorted(GOOD.keys() - {"id"})),
    *(GOOD | wrong for wrong in ({"kind": "explode"}, {"state": "lost"}, {"server": 7}, {"model": None})),
    *(GOOD | wrong for wrong in ({"created": "?"}, {"ended": None}, {"options": [1]}, {"number": "x"})),
    *(GOOD | wrong for wrong in ({"completed": "many"}, {"by": ["x"]}, {"created": 10**400})),
]


async def test_a_kept_job_says_what_it_said(autojump_clock: MockClock) -> None:
    async with process(Store({"k": GOOD}), "a") as system:
        job = system.jobs.get("k")
        assert (job.kind, job.server, job.model, job.by, states(job)) == (PULL, "a", "m", "ops", ["done"])
        assert (job.progress.completed, job.progress.total, job.progress.percent) == (50, 100, 50.0)


@pytest.mark.parametrize("document", NONSENSE)
async def test_a_kept_job_that_makes_no_sense_stops_nothing(document: Any, autojump_clock: MockClock) -> None:
    store = Store({"k": document})
    async with process(store, "a") as system:
        assert system.jobs.all() == []
        job = system.jobs.start(PULL, A, "new")
        assert await job.wait(200.0)
        store.write()
        assert store.kept.keys() == {"k", job.id}


async def test_fewer_remembered_ones_are_forgotten_by_the_store_too(autojump_clock: MockClock) -> None:
    store = Store()
    async with process(store, "a", jobs={"keep": 2}) as system:
        for name in "xyz":
            assert await system.jobs.start(DELETE, A, name).wait(10.0)
            store.write()
        assert sorted(doc["model"] for doc in store.kept.values()) == ["y", "z"]


# ---- whatever happens


@pytest.mark.parametrize("seed", range(3))
async def test_limits_hold_and_everything_ends_whatever_is_asked(seed: int, autojump_clock: MockClock) -> None:
    chance = random.Random(seed)
    limits = {"per_server": 2, "total": 3, "waiting": 8, "keep": 10}
    async with open_fleet(("a", SLOW), ("b", SLOW), ("c", SLOW), health=QUIET, jobs=limits) as fleet:
        board, asked = fleet.system.jobs, list[Job]()

        def ask() -> None:
            kind, server = chance.choice(list(JobKind)), ServerId(chance.choice("abc"))
            name = chance.choice(["m", "n", "x", "y", "missing"])
            try:
                asked.append(board.start(kind, server, name, priority=chance.randrange(3)))
            except (TooManyJobs, ServerNotFound):
                return

        async def upset() -> None:
            what = chance.randrange(12)
            if what < 2 and asked:
                with contextlib.suppress(JobNotFound):
                    board.cancel(chance.choice(asked).id)
            elif what == 2:
                fleet[chance.choice("ab")].host.reset_connections()
            elif what == 3 and chance.random() < 0.1 and ServerId("c") in fleet.system.servers:
                await fleet.system.remove_server(ServerId("c"), drain=False)
            else:
                await trio.sleep(chance.choice([0.0, 0.1, 7.0, 40.0]))

        for _ in range(150):
            ask()
            check_board(fleet, limits)
            await upset()
            check_board(fleet, limits)
        for job in asked:
            assert await job.wait(2000.0), job
        await trio.sleep(5.0)
        check_board(fleet, limits)
        assert len(board.all()) == 10
        assert {job.state.value for job in asked} == {"done", "failed", "cancelled"}
        fleet.assert_nothing_left()
        assert not any(cell.transfers for cell in fleet.system.servers.values())


def check_board(fleet: Fleet, limits: dict[str, int]) -> None:
    jobs = fleet.system.jobs.all()
    running = [job for job in jobs if job.state is JobState.RUNNING]
    waiting = [job for job in jobs if job.state is JobState.QUEUED]
    assert len(running) <= limits["total"]
    assert max(Counter(job.server for job in running).values(), default=0) <= limits["per_server"]
    assert len({job.key for job in running}) == len(running)
    assert len(waiting) <= limits["waiting"] + 1  # one may be taken that could start, had its server been probed
    assert len({(job.kind, job.key) for job in running + waiting}) == len(running + waiting)
    assert len(jobs) - len(running) - len(waiting) <= limits["keep"]
