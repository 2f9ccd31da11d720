"""A client that leaves, in whatever way and at whatever moment, frees everything within a tenth of a second."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from fleet.simulator import Profile, Stage
from tests.e2e.support import MODELS, ROUTES, SHOW, Route, connect, inference_seen, is_idle, stages, until
from tests.kit.clients.lanes import EDGE, QUART, both_lanes
from tests.kit.fleets.served import Served, served
from tests.kit.suite.pace import soonest
from web.simulator.engine.host import SeenRequest, SimHost

LIMIT = 0.1

Leave = Callable[[trio.SocketStream], None]


def closes(stream: trio.SocketStream) -> None:
    stream.socket.close()


def half_closes(stream: trio.SocketStream) -> None:
    stream.socket.shutdown(socket.SHUT_WR)


def resets(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


WAYS: list[Leave] = [closes, half_closes, resets]


@dataclass(frozen=True)
class Phase:
    """A moment in a request's life, and how to hold a request in it."""

    name: str
    profile: Profile
    reached: Callable[[Served, SimHost], bool]
    faults: tuple[str, ...] = ()
    stream: bool = True
    first_byte: bool = False
    decodes: bool = False

    def routes(self) -> list[Route]:
        if not self.decodes:
            return [*ROUTES, SHOW] if self.name == "hanging" else list(ROUTES)
        return [route for route in ROUTES if route.decodes and (route.streams or not self.stream)]


def _at(stage: Stage) -> Callable[[Served, SimHost], bool]:
    return lambda fleet, host: stage in stages(host)


_FAST = Profile(load_seconds=0.0, slots=4, tokens_per_second=2000.0, prefill_per_second=50_000.0)
_DECODES = Profile(load_seconds=0.0, slots=4, tokens_per_second=5.0, prefill_per_second=50_000.0)

PHASES = [
    Phase("queued", _FAST, lambda fleet, host: len(fleet.system.scheduler.tickets) > 0),
    Phase(
        "hanging",
        _FAST,
        lambda fleet, host: bool(_open(host)),
        faults=("all:hang-before-headers",),
    ),
    Phase("loading", Profile(load_seconds=60.0, slots=4), _at(Stage.LOADING)),
    Phase("prefill", Profile(load_seconds=0.0, slots=4, prefill_per_second=0.05), _at(Stage.PREFILL)),
    Phase("streaming", _DECODES, _at(Stage.DECODE), first_byte=True, decodes=True),
    Phase("decoding", _DECODES, _at(Stage.DECODE), stream=False, decodes=True),
]


def _open(host: SimHost) -> list[SeenRequest]:
    """Requests for work that the simulated server has not ended yet."""
    return [seen for seen in inference_seen(host) if seen.ended_at is None]


async def one(fleet: Served, phase: Phase, route: Route, leave: Leave) -> float:
    """Send a request, wait until it has come to the phase, leave; the seconds until all was free again."""
    host = fleet.sims["a"].host
    stream = await connect(fleet.url)
    try:
        await stream.send_all(route.request(stream=phase.stream and route.streams))
        if phase.first_byte:
            with trio.fail_after(20):
                assert b" 200 " in await stream.receive_some(65536)
        await until(lambda: phase.reached(fleet, host))
        leave(stream)
        began = trio.current_time()
        await until(lambda: is_idle(fleet) and not _open(host))
        return trio.current_time() - began
    finally:
        stream.socket.close()


def _case(value: object) -> str | None:
    return value.name if isinstance(value, Phase) else None


# Everything on the edge. The app behind it is left in one way in every phase, and in the others in mid-stream: on a
# Unix socket a reset is a close.
MATRIX = [(EDGE, phase, leave) for phase in PHASES for leave in WAYS] + [
    (QUART, phase, leave)
    for phase in PHASES
    for leave in (closes, half_closes)
    if leave is closes or phase.name == "streaming"
]


@pytest.mark.parametrize(("lane", "phase", "leave"), MATRIX, indirect=["lane"], ids=_case)
async def test_a_client_that_leaves_frees_everything_within_100_ms_on_every_route(phase: Phase, leave: Leave) -> None:
    async with served("a", models=MODELS, profile=phase.profile) as fleet:
        host = fleet.sims["a"].host
        if phase.name == "queued":
            fleet.system.pause(True)
        host.faults.set(*phase.faults)
        late = {}
        for route in phase.routes():
            if (took := await soonest(partial(one, fleet, phase, route, leave), LIMIT)) >= LIMIT:
                late[str(route)] = took
            if phase.name == "queued":
                assert not inference_seen(host)
            else:
                assert inference_seen(host)[-1].client_left, route
        host.faults.clear()
        assert not late
        fleet.assert_nothing_left()
        assert fleet.system.breakers.describe() == [], "nobody is to blame for a client that leaves"


@both_lanes
async def test_leaving_the_queue_of_a_busy_server_withdraws_the_ticket_and_harms_nobody() -> None:
    async with served("a", models=MODELS, profile=_DECODES, slots=1) as fleet:
        route = ROUTES[1]
        running, waiting, last = [await connect(fleet.url) for _ in range(3)]
        await running.send_all(route.request(stream=True))
        await running.receive_some(10)
        await waiting.send_all(route.request(stream=True))
        await until(lambda: len(fleet.system.scheduler.tickets) == 1)
        await last.send_all(route.request(stream=True))
        await until(lambda: len(fleet.system.scheduler.tickets) == 2)
        waiting.socket.close()
        await until(lambda: len(fleet.system.scheduler.tickets) == 1)
        assert fleet.system.in_flight == 1
        running.socket.close()
        with trio.fail_after(20):
            assert b" 200 " in await last.receive_some(10_000)
        last.socket.close()
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


@both_lanes
async def test_a_slot_left_in_mid_stream_goes_to_the_next_in_line_at_once() -> None:
    async with served("a", models=MODELS, profile=_DECODES, slots=1) as fleet:

        async def handed_on() -> float:
            first, second = [await connect(fleet.url) for _ in range(2)]
            await first.send_all(ROUTES[0].request(stream=True))
            await first.receive_some(10)
            await second.send_all(ROUTES[0].request(stream=True))
            await until(lambda: len(fleet.system.scheduler.tickets) == 1)
            resets(first)
            began = trio.current_time()
            await until(lambda: not fleet.system.scheduler.tickets and fleet.system.in_flight == 1)
            took = trio.current_time() - began
            second.socket.close()
            await until(lambda: is_idle(fleet))
            return took

        assert await soonest(handed_on, LIMIT) < LIMIT


@both_lanes
@pytest.mark.parametrize("leave", WAYS)
async def test_leaving_during_an_unload_of_all_holders_leaves_nothing_behind(leave: Leave) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        for sim in fleet.sims.values():
            sim.host.faults.set("hang-before-headers")
        async with await connect(fleet.url) as stream:
            unload = Route("/api/generate", {"model": "llama3:8b", "keep_alive": 0})
            await stream.send_all(unload.request())
            await until(lambda: any(sim.host.active_requests for sim in fleet.sims.values()))
            leave(stream)
            await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


@both_lanes
@pytest.mark.parametrize("leave", WAYS)
async def test_leaving_a_pull_stops_it_on_every_server(leave: Leave) -> None:
    profile = Profile(pull_seconds=600.0)
    async with served("a", "b", models=MODELS, profile=profile, placement={"pull_copies": 2}) as fleet:
        async with await connect(fleet.url) as stream:
            await stream.send_all(Route("/api/pull", {"model": "new:1b"}).request())
            await stream.receive_some(65536)
            hosts = [sim.host for sim in fleet.sims.values()]
            await until(lambda: all(host.seen("/api/pull") for host in hosts))
            leave(stream)
            await until(lambda: all(host.seen("/api/pull")[0].client_left for host in hosts))
        await until(lambda: all(cell.pool.open_count == 0 for cell in fleet.system.servers.values()))
        assert not any(cell.transfers for cell in fleet.system.servers.values())
