"""What a running fleet learns of its clients' wishes and of loads, on virtual time."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from fleet.common.ids import ModelName, Pair, RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.models.jobs import JobKind
from fleet.protocol.call import Call
from fleet.protocol.dialects import NATIVE
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

A = ServerId("a")
M, N = ModelName("m:latest"), ModelName("n:latest")
SLOW = Profile(load_seconds=20.0, slots=4, tokens_per_second=10.0, prefill_per_second=1e6, jitter=0.0)
QUIET = {"interval": 3600}
"""Nobody probes unless asked."""


async def served(fleet: Fleet, call: Call, **runner: object) -> None:
    call.runner = runner or None
    await fleet.system.exchange(call, Client())
    fleet.system.statistics.request_log.flush()


async def test_requests_that_end_well_tell_which_options_clients_use(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        demand = fleet.system.statistics.demand
        assert demand.options(M) == {}
        for _ in range(2):
            await served(fleet, chat("M"), num_ctx=8192)
        await served(fleet, chat("m:latest"))
        assert (demand.options(M), demand.embeds(M)) == ({"num_ctx": 8192}, False)
        assert demand.options(N) == {}


async def test_requests_that_fail_or_name_what_nobody_has_teach_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        call = chat("invented")
        call.runner = {"num_ctx": 1}
        assert await error_of(fleet, call) == "ModelNotFound"
        fleet["a"].host.faults.set("status:400:no")
        await served(fleet, chat("m"), num_ctx=1)
        assert fleet.system.statistics.demand.options(M) == {}
        assert fleet.system.statistics.demand.options(canonical("invented")) == {}
        assert fleet.system.statistics.demand.seconds(M) is None


async def test_a_cold_request_tells_how_long_the_load_took_and_how_long_an_answer_takes_without_it(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(("a", SLOW), health=QUIET) as fleet:
        await served(fleet, chat("m", tokens=30))
        loads, demand = fleet.system.statistics.load_times, fleet.system.statistics.demand
        assert loads.last(Pair(A, M)) == pytest.approx(20.0, abs=0.1)
        assert demand.seconds(M) == pytest.approx(3.0, abs=0.2)
        await served(fleet, chat("m", tokens=30))  # warm now: this is no load
        assert loads.last(Pair(A, M)) == pytest.approx(20.0, abs=0.1)
        assert loads.estimate(Pair(A, N), 2_000_000_000) == pytest.approx(40.0, abs=0.2)  # at 1 GB in 20 s


async def test_a_request_that_only_loads_says_nothing_of_how_long_an_answer_takes(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), health=QUIET) as fleet:
        load = Call(
            request_id=RequestId("r"),
            dialect=NATIVE,
            method="POST",
            target="/api/generate",
            headers=[(b"content-type", b"application/json")],
            body=b'{"model":"m","options":{"num_ctx":1024}}',
            endpoint="/api/generate",
            model=M,
            asked_model="m",
        )
        await served(fleet, load, num_ctx=1024)
        assert fleet.system.statistics.demand.options(M) == {"num_ctx": 1024}
        assert fleet.system.statistics.demand.seconds(M) is None
        assert fleet.system.statistics.load_times.last(Pair(A, M)) == pytest.approx(20.0, abs=0.1)


async def test_a_warm_up_tells_how_long_the_load_took(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW), health=QUIET) as fleet:
        job = fleet.system.jobs.start(JobKind.WARM, A, "m")
        assert await job.wait(60.0)
        assert fleet.system.statistics.load_times.last(Pair(A, M)) == pytest.approx(20.0, abs=0.1)
        assert fleet.system.statistics.demand.options(M) == {}  # nobody has asked for it
