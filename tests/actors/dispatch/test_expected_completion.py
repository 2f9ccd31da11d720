"""The policy by expected completion, as the actors tell it what happens: whole fleets in memory, virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from tests.actors.config.test_reconfigure import change
from tests.kit.fleets.fleet import QUICK, Client, Fleet, chat, error_of, open_fleet
from tests.kit.suite.records import recent

SLOW_LOAD = replace(QUICK, load_seconds=30.0, slots=2, jitter=0.0)
PLANS: dict[str, Any] = {"load_balancer": {"policy": "expected_completion"}}
M = ModelName("m:latest")


def expectations(fleet: Fleet) -> ExpectedCompletion:
    return fleet.system.scheduler.expectations


async def warm(fleet: Fleet, server: str, model: str = "m") -> None:
    """Load a model there, and let a probe see it."""
    await fleet.system.exchange(chat(model, pinned=server, tokens=2), Client())
    await fleet.system.probe(ServerId(server), 10.0)


def loads(fleet: Fleet, server: str) -> int:
    return fleet[server].host.server.loads_begun


async def test_a_request_waits_for_the_warm_server_rather_than_have_a_cold_one_load(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), slots=1, **PLANS) as fleet:
        await warm(fleet, "a")
        async with trio.open_nursery() as nursery:
            clients = [Client() for _ in range(4)]
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(tokens=60), client)
        assert all(client.complete for client in clients)
        assert (loads(fleet, "a"), loads(fleet, "b")) == (1, 0)
        fleet.assert_nothing_left()


@pytest.mark.parametrize("policy", ["weighted", "least_connections"])
async def test_policies_that_do_not_plan_never_let_anybody_wait_while_a_server_is_ready(
    autojump_clock: MockClock, policy: str
) -> None:
    other: dict[str, Any] = {"load_balancer": {"policy": policy}}
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), slots=1, **other) as fleet:
        await warm(fleet, "a")
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(fleet.system.exchange, chat(tokens=60), Client())
        assert loads(fleet, "b") == 1


async def test_who_waits_for_a_server_that_dies_goes_elsewhere(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), slots=1, **PLANS) as fleet:
        await warm(fleet, "a")
        client = Client()
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                running = Client()
                nursery.start_soon(fleet.system.exchange, chat(tokens=500), running)
                await running.first.wait()
                nursery.start_soon(fleet.system.exchange, chat(tokens=5), client)
                await wait_all_tasks_blocked()
                assert not client.started
                fleet["a"].kill()
        assert client.complete
        assert client.headers["x-fleet-server"] == "b"
        fleet.assert_nothing_left()


async def test_the_second_turn_of_nothing_in_particular_stays_where_the_model_is(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), ("c", SLOW_LOAD), **PLANS) as fleet:
        await warm(fleet, "b")
        served = set()
        for _ in range(5):
            client = Client()
            await fleet.system.exchange(chat(), client)
            served.add(client.headers["x-fleet-server"])
        assert served == {"b"}


async def two_warm(fleet: Fleet) -> None:
    for server in "ab":
        await warm(fleet, server)


async def turns_of(fleet: Fleet, number: int, *, same_text: bool, header: bytes = b"") -> list[str]:
    """Where the turns of one chat went. Without `same_text` only a header says that they belong together."""
    served, text = [], "You are a careful assistant. " * 100
    for turn in range(number):
        text = text + f" And then {turn}?" if same_text else f"{turn} is another text altogether. " * 100
        call, client = chat(text=text), Client()
        if header:
            call.headers = [*call.headers, (header, b"one")]
        await fleet.system.exchange(call, client)
        served.append(client.headers["x-fleet-server"])
    return served


@pytest.mark.parametrize(
    ("same_text", "header"), [(True, b""), (False, b"x-session-id"), (False, b"x-openwebui-chat-id")]
)
async def test_a_chat_stays_where_its_beginning_is_cached(
    autojump_clock: MockClock, same_text: bool, header: bytes
) -> None:
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), **PLANS) as fleet:
        await two_warm(fleet)
        served = await turns_of(fleet, 8, same_text=same_text, header=header)
        assert len(set(served)) == 1, served


async def test_nothing_is_remembered_of_requests_that_are_over(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK), ("b", QUICK), slots=2, **PLANS) as fleet:

        async def leaver(after: float) -> None:
            with trio.move_on_after(after):
                await fleet.system.exchange(chat("mn"[int(after * 10) % 2], tokens=40), Client())

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(leaver, number / 10)
            for number in range(40):
                nursery.start_soon(fleet.system.exchange, chat("mn"[number % 2], stream=number % 3 > 0), Client())
        assert expectations(fleet).estimates.open == 0
        assert len(fleet.system.statistics.request_log.remembered) <= 100
        assert len(recent(fleet.system.statistics.request_log)) == 100
        fleet.assert_nothing_left()


async def test_what_happens_teaches(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), **PLANS) as fleet:
        for _ in range(3):
            await fleet.system.exchange(chat(tokens=40), Client())
        estimates = expectations(fleet).estimates
        runner = estimates.slots(Pair(ServerId("a"), M))
        assert runner is not None
        assert runner.open == 0
        asker = ("", M, "/api/chat")
        assert 20 < estimates.answer_tokens.tokens(asker, trio.current_time()) < 200


async def test_what_predictions_were_worth_is_counted_by_term(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), slots=1, **PLANS) as fleet:
        await warm(fleet, "a")
        for _ in range(10):
            await fleet.system.exchange(chat(tokens=60), Client())
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(fleet.system.exchange, chat(tokens=60), Client())
        shown = {term: ratio.shown() for term, ratio in fleet.system.statistics.metrics.predictions.items()}
        assert shown["decode"][0][-1] >= 10
        counts, total, _ = shown["wait"]
        assert counts[-1] == 3, "three of four waited for the slot"
        assert total / counts[-1] == pytest.approx(1.0, abs=0.5)


async def test_a_policy_that_plans_can_be_chosen_and_left_while_requests_wait(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), slots=1) as fleet:
        await warm(fleet, "a")
        clients = [Client() for _ in range(6)]
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(fleet.system.exchange, chat(tokens=30), client)
                await wait_all_tasks_blocked()
                for policy in ("expected_completion", "random", "expected_completion"):
                    change(fleet, load_balancer={"policy": policy})
                    await trio.sleep(0.5)
        assert all(client.complete for client in clients)
        assert expectations(fleet).estimates.open == 0
        fleet.assert_nothing_left()


async def test_a_crash_of_the_dispatcher_forgets_neither_who_waits_nor_what_was_learned(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor dispatcher crashed")
    async with open_fleet(("a", SLOW_LOAD), slots=1, **PLANS) as fleet:
        await warm(fleet, "a")
        before = expectations(fleet)
        clients = [Client() for _ in range(3)]
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(fleet.system.exchange, chat(tokens=30), client)
                await clients[0].first.wait()
                with monkeypatch.context() as patch:
                    patch.setattr(ExpectedCompletion, "price", lambda *_: 1 / 0)
                    nursery.start_soon(fleet.system.exchange, chat(tokens=5), Client())
                    await wait_all_tasks_blocked()
        assert all(client.complete for client in clients)
        assert expectations(fleet) is before
        assert before.estimates.open == 0
        fleet.assert_nothing_left()


async def test_expectations_that_fail_keep_nothing_from_the_breaker(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("what request")
    async with open_fleet(("a", QUICK), retry={"max_attempts": 1}, **PLANS) as fleet:
        monkeypatch.setattr(ExpectedCompletion, "ended", lambda *_: 1 / 0)
        fleet["a"].host.faults.set("reset-before-headers")
        assert await error_of(fleet, chat()) == "BackendBroke"
        (view,) = fleet.system.breakers.describe()
        assert view.pair == Pair(ServerId("a"), M)
        fleet.assert_nothing_left()
