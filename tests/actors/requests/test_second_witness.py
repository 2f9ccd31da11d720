"""Whose fault a refusal was: the next server is the witness. And who fails fast draws nobody."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from pydantic import SecretStr
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import BanPair
from fleet.breakers.values import BreakerState
from fleet.common.errors import BackendRefused, RouteMissing
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.bans import BanKind
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet
from tests.kit.suite.records import recent

A, B, M = ServerId("a"), ServerId("b"), ModelName("m:latest")
PAIR, OTHER = Pair(A, M), Pair(B, M)
TURNS: dict[str, Any] = {"load_balancer": {"policy": "round_robin"}}
MEMORY = "model requires more system memory ({} GiB) than is available (4.4 GiB)"


async def ask(fleet: Fleet, *, stream: bool = True) -> Client:
    await fleet.system.exchange(chat(stream=stream), client := Client())
    await wait_all_tasks_blocked()
    return client


def asked(fleet: Fleet, server: str) -> int:
    return len(fleet[server].host.seen("/api/chat"))


def failures(fleet: Fleet, pair: Pair = PAIR) -> int:
    view = fleet.system.breakers.get(pair)
    return 0 if view is None else sum(view.error_counts.values())


@pytest.mark.parametrize("text", ["never heard of", "model runner has unexpectedly stopped", "no slots available"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_that_another_server_does_not_share_was_the_first_ones_failure(
    autojump_clock: MockClock, text: str, stream: bool
) -> None:
    async with open_fleet("a", "b", **TURNS) as fleet:
        fleet["a"].host.faults.set(f"status:500:{text}")
        clients = [await ask(fleet, stream=stream) for _ in range(2)]
        assert [client.status for client in clients] == [200, 200]
        assert asked(fleet, "a") == failures(fleet) == 1, "one outcome for one attempt"
        assert failures(fleet, OTHER) == 0
        fleet.assert_nothing_left()


@pytest.mark.parametrize("status", [413, 418, 451, 500, 501])
async def test_a_request_that_two_servers_refuse_alike_blames_nobody_and_gets_the_first_answer(
    autojump_clock: MockClock, status: int
) -> None:
    async with open_fleet("a", "b", "c", **TURNS) as fleet:
        for server, address in (("a", "10.0.0.1:33015"), ("b", "10.0.0.2:4"), ("c", "10.0.0.3:999")):
            fleet[server].host.faults.set(f"status:{status}:no such luck on {address}")
        for _ in range(6):
            client = await ask(fleet)
            assert (client.status, client.headers["x-fleet-attempts"]) == (status, "2")
            first, second = recent(fleet.system.statistics.request_log)[-1].tries
            assert client.headers["x-fleet-server"] == first.server != second.server
        assert fleet.system.breakers.describe() == []
        assert len(fleet.system.scheduler.bans) == 0
        fleet.assert_nothing_left()


async def test_a_request_that_kills_runners_opens_no_breaker_and_a_lone_server_that_crashes_does(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b") as fleet:
        for server in "ab":
            fleet[server].host.faults.set("runner-crash")
        for number in range(20):
            await fleet.system.exchange(chat(text=f"number {number}"), client := Client())
            assert client.status == 500
        assert fleet.system.breakers.describe() == []
        assert len(fleet.system.scheduler.bans) == 0
    async with open_fleet("a") as fleet:
        fleet["a"].host.faults.set("runner-crash")
        for _ in range(2):
            assert (await ask(fleet)).status == 500
        view = fleet.system.breakers.get(PAIR)
        assert view is not None
        assert [move.to for move in view.history][:1] == [BreakerState.OPEN]


async def test_servers_that_are_down_one_and_all_are_blamed(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", **TURNS) as fleet:
        for server in "ab":
            fleet[server].host.faults.set("status:503:down")
        await ask(fleet)
        assert (failures(fleet), failures(fleet, OTHER)) == (1, 1)


async def test_a_server_that_has_enough_to_do_is_left_alone_and_not_blamed(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", **TURNS) as fleet:
        for _ in range(2):
            await ask(fleet)  # so that both have it in memory
        fleet["a"].host.faults.set("status:503:maximum pending requests exceeded")
        while not fleet.cell("a").state.holds:
            client = await ask(fleet, stream=False)
            assert (client.headers["x-fleet-server"], client.headers["x-fleet-attempts"]) == ("b", "1")
        assert failures(fleet) == 0
        assert len(fleet.system.scheduler.bans) == 0


async def test_a_model_that_does_not_fit_is_kept_away_for_minutes_and_all_that_refuse_are_asked(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b", "c", **TURNS) as fleet:
        for server, size in (("a", "5.3"), ("b", "6.1")):
            fleet[server].host.faults.set(f"status:500:{MEMORY.format(size)}")
        assert (await ask(fleet)).headers["x-fleet-server"] == "c", "two that have no room say nothing of the third"
        before = asked(fleet, "a") + asked(fleet, "b")
        for _ in range(50):
            await ask(fleet)
            await trio.sleep(5.0)
        assert asked(fleet, "a") + asked(fleet, "b") <= before + 2
        ban = fleet.system.scheduler.bans.get(PAIR, BanKind.COOLDOWN, trio.current_time())
        assert ban is not None
        assert "memory" in ban.reason


async def test_a_model_that_fits_nowhere_is_told_in_ollamas_words_and_breaks_nothing(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        for server in "ab":
            fleet[server].host.faults.set(f"status:500:{MEMORY.format('5.3')}")
        for _ in range(8):
            client = await ask(fleet)
            assert client.status == 500
            assert b"requires more system memory" in client.body
        assert fleet.system.breakers.describe() == []


async def test_a_server_that_does_not_let_us_in_says_so_in_its_health_until_it_does(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", **TURNS) as fleet:
        state = fleet.cell("a").state
        fleet["a"].host.faults.set("status:401:unauthorized")
        for _ in range(2):
            assert (await ask(fleet)).status == 200
        assert "401" in state.why
        assert "api_key" in state.why
        await fleet.system.probe(A, 10.0)
        assert "401" in state.why, "probes prove nothing here"
        fleet["a"].host.faults.clear()
        for _ in range(3):
            await ask(fleet)
        assert state.why == "answers probes"


async def test_a_401_reaches_the_client_only_if_all_servers_agree(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", "c", retry={"max_attempts": 2}, **TURNS) as fleet:
        for server in "ab":
            fleet[server].host.faults.set("status:401:unauthorized")
        fleet["c"].host.faults.set("status:503:down")
        seen = set()
        for _ in range(6):
            client = Client()
            try:
                await fleet.system.exchange(chat(), client)
                seen.add(client.status)
            except BackendRefused as error:
                seen.add(error.status)
        assert 401 not in seen
        fleet["c"].host.faults.set("status:401:unauthorized")
    async with open_fleet("a", "b") as fleet:
        for server in "ab":
            fleet[server].host.faults.set("status:401:unauthorized")
        assert (await ask(fleet)).status == 401
        assert failures(fleet) == 0


async def test_a_refusal_that_repeats_the_fleets_key_does_not_reach_the_client(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        state = fleet.cell("a").state
        state.spec = state.spec.model_copy(update={"api_key": SecretStr("sk-of-the-server")})
        fleet["a"].host.faults.set("status:401:Incorrect API key provided: sk-of-the-server")
        with pytest.raises(BackendRefused) as raised:
            await ask(fleet)
        assert raised.value.status == 502
        assert "sk-of" not in str(raised.value)


async def test_a_second_opinion_is_not_waited_for_in_a_long_line(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=1, load_balancer={"policy": "least_connections"}) as fleet:
        fleet["a"].host.faults.set("status:418:I am a teapot")
        fleet["b"].host.faults.set("hang-before-headers")
        with trio.move_on_after(60.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(error_of, fleet, chat())  # the first to be refused by a; it holds b
                await trio.sleep(1.0)
                began = trio.current_time()
                client = await ask(fleet)
                assert client.status == 418
                assert trio.current_time() - began <= 20.0
                nursery.cancel_scope.cancel()
        assert failures(fleet) == 0


# ---- routes that a server is too old for


async def responses(fleet: Fleet) -> Client:
    call = chat()
    call.endpoint = call.target = "/v1/completions"
    await fleet.system.exchange(call, client := Client())
    return client


async def test_servers_without_the_route_are_not_asked_again_and_if_all_lack_it_the_client_is_told(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b") as fleet:
        missing = fleet.system.missing_routes
        for server in (A, B):
            missing.note(server, "/v1/completions", fleet.cell(server).state.version, trio.current_time())
        with pytest.raises(RouteMissing):
            await responses(fleet)
        assert not fleet["a"].host.seen("/v1/completions")
        assert (await ask(fleet)).status == 200, "other routes work"
        fleet["a"].host.server.profile = fleet["a"].host.server.profile.__class__(version="0.99.0")
        await fleet.system.probe(A, 10.0)
        assert not missing.routes(A)
        assert missing.routes(B)


# ---- passed over


async def test_who_fails_fast_twice_is_passed_over_even_by_those_who_have_to_wait(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=1, enable_circuit_breaker=False, **TURNS) as fleet:
        fleet["a"].host.faults.set("status:502:nobody there")
        for _ in range(2):
            await ask(fleet)
            await ask(fleet)
        before = asked(fleet, "a")
        assert before == 2
        assert fleet.cell("a").state.cooling == {M}
        clients = [Client() for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
            await trio.sleep(0.5)
            assert asked(fleet, "a") == before
        assert all(client.complete for client in clients)


async def test_who_is_passed_over_serves_when_nobody_else_can(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        until = trio.current_time() + 1000.0
        for pair in (PAIR, OTHER):
            fleet.system.scheduler.mailbox.cast(BanPair(pair, "test", until, cooldown=True))
        assert (await ask(fleet)).complete
        assert fleet.cell("a").state.cooling | fleet.cell("b").state.cooling == {M}, "a success ends it"


async def test_those_who_wait_get_who_is_passed_over_when_the_others_go(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=1) as fleet:
        fleet.system.scheduler.mailbox.cast(BanPair(PAIR, "test", trio.current_time() + 1000.0, cooldown=True))
        async with trio.open_nursery() as nursery:
            fleet["b"].host.faults.set("hang-before-headers")
            nursery.start_soon(error_of, fleet, chat())
            await wait_all_tasks_blocked()
            waiting = Client()
            nursery.start_soon(fleet.system.exchange, chat(), waiting)
            await trio.sleep(1.0)
            assert not waiting.started
            fleet["b"].kill()
            await fleet.system.probe(B, 20.0)
            await fleet.system.probe(B, 20.0)
            with trio.fail_after(60.0):
                while not waiting.finished:
                    await trio.sleep(0.5)
            assert waiting.complete
            nursery.cancel_scope.cancel()


async def test_who_was_passed_over_is_tried_again_in_time_and_then_as_good_as_the_others(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b", enable_circuit_breaker=False, **TURNS) as fleet:
        fleet["a"].host.faults.set("status:502:nobody there")
        for _ in range(6):
            await ask(fleet)
        fleet["a"].host.faults.clear()
        await trio.sleep(61.0)
        served = [(await ask(fleet)).headers["x-fleet-server"] for _ in range(12)]
        assert served.count("a") >= 4
        assert fleet.cell("a").state.stats_of(M).cooling.strikes == 0


async def test_a_decision_says_what_is_held_against_a_server(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", enable_circuit_breaker=False, **TURNS) as fleet:
        fleet["a"].host.faults.set("status:502:nobody there")
        while not asked(fleet, "a"):
            await ask(fleet)
        fleet["a"].host.faults.clear()
        await ask(fleet)
        decision = fleet.system.scheduler.memory.decisions[-1]
        held = {server: parts[0] for server, parts in decision.candidates}
        assert held == {"a": pytest.approx(-2.0, abs=0.1), "b": 0.0}, "it is forgotten with time, but not in a moment"
