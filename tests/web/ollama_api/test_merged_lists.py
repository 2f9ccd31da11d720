"""The merged lists are made anew when something has changed, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.server_state import Health
from tests.web.fake_system import FakeSystem
from web.ollama_api.merged_lists import Listing, tags, v1_models


def names(listing: Listing) -> list[str]:
    return sorted(row["name"] for row in orjson.loads(listing.body())["models"])


async def test_what_has_not_changed_is_not_merged_again() -> None:
    merged: list[Any] = []
    listing = Listing(FakeSystem().handle, merged.append)
    assert listing.body() == listing.body() == b"null"
    assert len(merged) == 1


def forget(system: FakeSystem) -> None:
    system.servers[ServerId("a")].state.models.pop(ModelName("m:latest"))


def learn(system: FakeSystem) -> None:
    system.servers[ServerId("b")].state.models = {ModelName("n:latest"): {"name": "n:latest"}}


def fail(system: FakeSystem) -> None:
    system.servers[ServerId("a")].state.health = Health.UNHEALTHY


def leave(system: FakeSystem) -> None:
    del system.servers[ServerId("a")]


@pytest.mark.parametrize(
    ("change", "servers"),
    [(forget, [["b"]]), (learn, [["a"], ["b"]]), (fail, [["b"]]), (leave, [["b"]])],
    ids=["forget", "learn", "fail", "leave"],
)
async def test_every_change_shows_at_once(change: Callable[[FakeSystem], None], servers: list[list[str]]) -> None:
    system = FakeSystem()
    listing, other = tags(system.handle), v1_models(system.handle)
    assert names(listing) == ["m:latest"]
    before = other.body()
    change(system)
    rows = orjson.loads(listing.body())["models"]
    assert sorted(row["servers"] for row in rows) == servers
    assert (other.body() == before) == (change is not learn)


async def test_a_probe_that_finds_the_same_changes_nothing() -> None:
    from tests.kit.fleets.served import served

    async with served("a") as product:
        state = product.system.servers[ServerId("a")].state
        before = state.models
        await product.system.probe(ServerId("a"), 5.0)
        assert state.models is before
