"""Six hundred random calls of the admin API against a fleet that serves: answers as promised, nothing left over."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.simulator import Profile
from tests.kit.clients.admin import checked
from tests.kit.fleets.served import MODELS, Served, served
from web.admin.kit.routes import Route
from web.admin.route_table import entries

PROFILE = Profile(load_seconds=0.01, slots=4, tokens_per_second=500.0, prefill_per_second=50_000.0, pull_seconds=0.05)
SERVERS = ("a", "b", "c", "ghost", "x y", "..", "%2e%2e", "server", "model")
NAMES = (
    "llama3:8b",
    "llama3%3A8b",
    "tiny",
    "TINY:latest",
    "ns/odd:1b",
    "ns%2Fodd:1b",
    "nope:1b",
    "status",
    "a:b:c",
    "%00",
)
LEFT_OUT = {
    ("POST", "/api/orchestrator/config"),  # has tests of its own; here it would only lock the caller out
    ("PATCH", "/api/orchestrator/config/<section>"),
    ("POST", "/api/orchestrator/config/reload"),
    ("POST", "/api/orchestrator/config/save"),
}
ROUTES = [entry for entry in entries() if (entry.method, entry.path) not in LEFT_OUT]

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(("low", "high", "llama3:8b", "a", "b", "http://127.0.0.1:9", "cooldown", "1h", "600000000000")),
    st.lists(st.sampled_from(SERVERS), max_size=3),
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, str, Any]:
    """The number of a route, its path filled in, and a body that is often nearly right."""
    number = draw(st.integers(0, len(ROUTES) - 1))
    entry = ROUTES[number]
    path = re.sub(r"<path:\w+>", lambda _: draw(st.sampled_from(NAMES)), entry.path)
    path = re.sub(r"<\w+>", lambda _: draw(st.sampled_from(SERVERS)), path)
    query = {param.name: draw(values) for param in entry.query if draw(st.booleans())}
    words = "&".join(f"{name}={value}" for name, value in query.items() if re.fullmatch(r"[\w.:-]*", str(value)))
    body: Any = None
    if entry.body is not None:
        names = [info.alias or name for name, info in entry.body.model_fields.items()]
        body = {name: draw(values) for name in names if draw(st.booleans())}
        if draw(st.integers(0, 9)) == 0:
            body = draw(st.one_of(values, st.dictionaries(st.text(max_size=5), values, max_size=2)))
    return number, f"{path}?{words}" if words else path, body


async def traffic(fleet: Served, stop: trio.Event, outcomes: list[int]) -> None:
    """A client that never rests; being refused is fine, being left hanging is not."""
    async with fleet.client() as client:
        number = 0
        while not stop.is_set():
            number += 1
            body = {"model": ("llama3:8b", "tiny")[number % 2], "prompt": "hi", "options": {"num_predict": 5}}
            with trio.fail_after(60):
                answer = await client.post("/api/generate", json=body)
            outcomes.append(answer.status_code)


async def storm(sequence: list[tuple[int, str, Any]]) -> None:
    timeouts = {"queue": 1.0}
    async with served("a", "b", "c", models=MODELS + ",ns/odd:1b:1GB", profile=PROFILE, timeouts=timeouts) as fleet:
        stop, outcomes = trio.Event(), list[int]()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(traffic, fleet, stop, outcomes)
            async with fleet.client() as client:
                for number, path, body in sequence:
                    entry = ROUTES[number]
                    with trio.fail_after(60):
                        answer = await client.request(entry.method, path, json=body)
                    judge(entry, answer)
                    assert fleet.system.in_flight == sum(len(c.leases) for c in fleet.system.servers.values())
                    assert fleet.system.in_flight == fleet.system.scheduler.memory.total.in_use
                await client.post("/api/orchestrator/queue/resume")
            stop.set()
        assert outcomes
        assert set(outcomes) <= {200, 404, 502, 503, 504}
        await fleet.until_idle()
        fleet.assert_nothing_left()


def judge(entry: Route, answer: Any) -> None:
    """A path that was filled in may lead to another route, or to none at all; what answers keeps its promise."""
    media = answer.headers.get("content-type", "")
    assert answer.status_code < 500 or answer.status_code in entry.fails, (entry.path, answer.status_code, answer.text)
    if media == "application/json; charset=utf-8" and not entry.bare and answer.status_code in (200, 400, 403, 409):
        checked(entry.method, answer.request.url.raw_path.decode(), answer)  # the client has resolved `..` in it


@pytest.mark.slow
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(st.lists(calls(), min_size=40, max_size=40))
def test_six_hundred_random_admin_calls_leave_the_fleet_whole(sequence: list[tuple[int, str, Any]]) -> None:
    trio.run(storm, sequence)
