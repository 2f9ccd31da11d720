"""Why requests went where they went, told in terms, predictions and outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.observability.metrics_gauges import snapshot
from actors.state.decision_views import DecisionView
from fleet.common.ids import ModelName, Pair, RequestId, ServerId
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from tests.kit.fleets.fleet import QUICK, Client, Fleet, chat, error_of, open_fleet

SLOW_LOAD = replace(QUICK, load_seconds=30.0, slots=1, jitter=0.0)
PLANS: dict[str, Any] = {"load_balancer": {"policy": "expected_completion"}}
A, B, M = ServerId("a"), ServerId("b"), ModelName("m:latest")


def last(fleet: Fleet) -> DecisionView:
    return next(fleet.system.queries.decisions())


async def ask(fleet: Fleet, **what: Any) -> None:
    await fleet.system.exchange(chat(**what), client := Client())
    assert client.complete


async def test_a_decision_of_a_policy_that_plans_says_its_terms_and_what_came(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), **PLANS) as fleet:
        await ask(fleet, pinned="a")
        await fleet.system.probe(A, 10.0)
        for _ in range(12):
            await ask(fleet, tokens=40)
            await trio.sleep(1.0)
        view = last(fleet)
        assert (view.chosen, view.policy, view.model) == (A, "expected_completion", M)
        assert view.why == "the best of 2 servers"
        assert {each.server for each in view.candidates} == {A, B}
        warm, cold = view.candidates
        assert set(warm.terms) == {"wait", "load", "prefill", "decode", "eviction", "failure", "bonus"}
        assert (warm.terms["load"], warm.terms["wait"]) == (0.0, 0.0)
        assert cold.terms["load"] > 1.0
        assert view.margin is not None
        assert view.margin > 1.0
        assert view.predicted is not None
        assert view.came is not None
        assert view.outcome == "well"
        assert view.came.decode is not None
        assert view.predicted.decode == pytest.approx(view.came.decode, rel=0.3)
        assert view.predicted.done == pytest.approx(view.came.done, rel=0.3)


async def test_it_says_for_whom_a_request_waited_and_how_long_that_was_to_be(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", SLOW_LOAD), ("b", SLOW_LOAD), slots=1, **PLANS) as fleet:
        await ask(fleet, pinned="a")
        await fleet.system.probe(A, 10.0)
        for _ in range(12):
            await ask(fleet, tokens=100)
            await trio.sleep(1.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.system.exchange, chat(tokens=100), Client())
            await wait_all_tasks_blocked()
            nursery.start_soon(fleet.system.exchange, chat(tokens=100), Client())
            await wait_all_tasks_blocked()
            assert last(fleet).outcome is None, "it runs"
            assert last(fleet).came is None
        view = last(fleet)
        assert view.hoped == A
        assert view.why.startswith("waited for a, which was to take it after ")
        assert view.predicted is not None
        assert view.came is not None
        assert view.predicted.wait is not None
        assert view.predicted.wait > 0.5
        assert view.came.wait == view.waited
        assert view.predicted.wait == pytest.approx(view.waited, rel=0.5)


async def test_policies_that_do_not_plan_show_the_parts_of_their_scores(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK), ("b", QUICK), slots=1) as fleet:
        await ask(fleet)
        view = last(fleet)
        assert view.policy == "weighted"
        assert set(view.candidates[0].terms) >= {"cooling", "latency", "residency"}
        assert view.candidates[0].score == pytest.approx(sum(view.candidates[0].terms.values()))
        assert (view.predicted, view.came, view.outcome, view.hoped) == (None, None, None, None)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, fleet)
        assert last(fleet).why == "waited until a server could take it"


async def test_one_that_was_alone_was_compared_with_nobody(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK)) as fleet:
        await ask(fleet)
        (candidate,) = last(fleet).candidates
        assert (candidate.score, candidate.terms) == (None, {})
        assert last(fleet).why == "the only server that could take it"
        assert last(fleet).margin is None


async def test_what_failed_says_so(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK), retry={"max_attempts": 1}, **PLANS) as fleet:
        fleet["a"].host.faults.set("reset-before-headers")
        assert await error_of(fleet, chat()) == "BackendBroke"
        view = last(fleet)
        assert (view.outcome, view.chosen) == ("failed", A)
        assert view.came is not None
        assert (view.came.first_token, view.came.decode) == (None, None)


async def test_they_are_found_by_server_model_and_request(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK), ("b", QUICK), **PLANS) as fleet:
        for server in "ab":
            for model in "mn":
                await ask(fleet, pinned=server, model=model)
        queries = fleet.system.queries
        assert len(list(queries.decisions())) == 4
        assert {view.chosen for view in queries.decisions(server=A)} == {A}
        assert {view.model for view in queries.decisions(model=M)} == {M}
        assert [view.chosen for view in queries.decisions(server=B, model=M)] == [B]
        newest = last(fleet).request_id
        assert [view.request_id for view in queries.decisions(request=newest)] == [newest]
        assert list(queries.decisions(request=RequestId("nobody"))) == []


def test_the_terms_have_the_names_that_the_policy_gives_them() -> None:
    policy = ExpectedCompletion()
    assert (policy.parts[policy.wait], policy.parts[policy.load], policy.parts[policy.harm]) == (
        "wait",
        "load",
        "eviction",
    )


async def test_it_says_when_predictions_were_not_to_be_trusted(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", QUICK), ("b", QUICK), **PLANS) as fleet:
        for server in "ab":
            await ask(fleet, pinned=server)
            await fleet.system.probe(ServerId(server), 10.0)
        estimates = fleet.system.scheduler.expectations.estimates
        await ask(fleet)
        for at in range(60):
            now = trio.current_time()
            estimates.trust.learn(Pair(A, M), 1.0, 1.0, now, 8.0 if at % 2 else 0.125)
        await trio.sleep(20.0)
        await ask(fleet)
        assert last(fleet).why.startswith("the least to do (LMetric) among warm servers")
        families = {family.metric.name: family for family in snapshot(fleet.system, "1", "3")}
        assert dict(families["fleet_prediction_unreliable_models"].points) == {("a",): 1, ("b",): 0}
