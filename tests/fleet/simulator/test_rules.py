"""Rules of the simulated server that have no exceptions, whatever is asked in whatever order."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.simulator import Ask, Profile, SimServer, SimulatedJob, Stage, model_file, stats_of, work_for
from fleet.simulator.work import OVER

GB = 10**9
FILES = [model_file(name, size * GB) for name, size in (("a", 4), ("b", 8), ("c", 14), ("embed", 1))]

steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "leave", "unload", "crash", "restart", "wait"]),
        st.integers(0, 3),
        st.floats(0, 3, allow_nan=False),
        st.sampled_from([0.0, 2.0, 300.0]),
        st.sampled_from([4096, 4096, 512]),
    ),
    max_size=40,
)


PLAIN = Profile(vram=16 * GB, max_loaded=2, load_seconds=1.0)
HABITS = replace(
    PLAIN,
    load_rate=8 * GB,
    cold_load_factor=2.0,
    failing_loads=0.2,
    batch_cost=0.3,
    slot_caches=True,
    parked_tokens=50,
    bytes_per_token=100_000,
    poison="hello hello hello",
)


class World:
    """A server, and everything that was asked of it."""

    def __init__(self, profile: Profile, slots: int) -> None:
        profile = replace(profile, slots=slots)
        self.server = SimServer(profile, FILES, random.Random(slots))
        self.jobs: list[SimulatedJob] = []
        self.started: dict[object, list[int]] = defaultdict(list)

    def step(self, what: str, pick: int, now: float, stay: float, num_ctx: int) -> None:
        server, job = self.server, self.jobs[pick % len(self.jobs)] if self.jobs else None
        if what == "ask":
            ask = Ask("hello " * pick, {"num_ctx": num_ctx}, stay)
            number = len(self.jobs)
            self.jobs.append(server.submit(work_for(FILES[pick], server.profile, ask), now, lambda: self.note(number)))
            self.note(number)
        elif what == "leave" and job is not None:
            server.leave(job, now)
        elif what == "unload":
            server.unload(FILES[pick], now)
        elif what == "crash" and job is not None and job.runner is not None:
            server.crash(job.runner, now)
        elif what == "restart":
            server.restart(now)

    def note(self, number: int) -> None:
        if number < len(self.jobs) and (job := self.jobs[number]).stage is Stage.PREFILL:
            self.started[job.runner].append(number)

    def check(self) -> None:
        server, profile = self.server, self.server.profile
        loading = [job for job in self.jobs if job.stage is Stage.LOADING]
        assert len(loading) == (server.loading is not None)
        assert len(server.runners) + len(loading) <= profile.max_loaded
        assert server.vram_used <= profile.vram
        for runner in server.runners.values():
            assert len(runner.active) <= runner.slots
            assert not runner.queue or len(runner.active) == runner.slots
        waiting = [job for job in self.jobs if job.stage is Stage.PENDING]
        assert len(waiting) == server.pending
        # Nobody waits for nothing: something will happen, or some runner is at work.
        live = [job for job in self.jobs if job.stage not in OVER]
        assert not live or min(job.wake_at for job in live) < float("inf")


@settings(max_examples=150, deadline=None)
@given(steps=steps, slots=st.integers(1, 3), profile=st.sampled_from([PLAIN, HABITS]))
def test_slots_memory_and_loads_stay_within_bounds_and_everybody_ends(
    steps: list[tuple[str, int, float, float, int]], slots: int, profile: Profile
) -> None:
    world, now = World(profile, slots), 0.0
    for what, pick, gap, stay, num_ctx in steps:
        now += gap
        world.server.advance(now)
        world.check()
        world.step(what, pick, now, stay, num_ctx)
        world.check()
    while world.server.next_event < now + 1000:
        world.server.advance(world.server.next_event)
        world.check()
    assert all(job.stage in OVER for job in world.jobs)
    for runner_order in world.started.values():
        assert runner_order == sorted(runner_order)
    for job in world.jobs:
        if job.stage is Stage.DONE:
            stats = stats_of(job)
            assert stats.total == stats.load + stats.wait + stats.prompt_eval + stats.eval
            assert abs(stats.total - (job.finished_at - job.submitted_at) * 1e9) < 2e6


@given(seed=st.integers(0, 5))
def test_equal_seeds_give_equal_servers(seed: int) -> None:
    def total() -> list[int]:
        server = SimServer(Profile(slots=2), FILES, random.Random(seed))
        jobs = [server.submit(work_for(FILES[n % 2], server.profile, Ask(f"p{n}")), n / 10) for n in range(10)]
        while server.next_event < 200:
            server.advance(server.next_event)
        return [stats_of(job).total for job in jobs]

    assert total() == total()
