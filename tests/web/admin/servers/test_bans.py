"""Bans by REST: every route, field, unit and error, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from actors.state.messages import BanPair
from fleet.common.ids import ModelName, Pair, ServerId
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served

MODELS = "llama3:8b:4.7GB,ns/coder:7b:1GB,tiny:latest:1GB"


@pytest.fixture
async def fleet() -> AsyncIterator[Served]:
    async with served("a", "b", models=MODELS) as here:
        yield here


async def ban(fleet: Served, server: str = "a", model: str = "tiny", **more: object) -> Any:
    return await ask(fleet, "POST", "/bans", {"serverId": server, "model": model, **more})


def cool(fleet: Served, server: str, model: str, seconds: float = 60.0) -> None:
    pair = Pair(ServerId(server), ModelName(model))
    ban = BanPair(pair, "answers slowly", trio.current_time() + seconds, cooldown=True)
    fleet.system.scheduler.mailbox.cast(ban)


async def listed(fleet: Served, query: str = "") -> list[tuple[str, str, str]]:
    found = await ask(fleet, "GET", f"/bans{query}")
    return [(row["serverId"], row["model"], row["type"]) for row in found["bans"]]


async def test_a_ban_is_listed_with_its_type_reason_times_and_author(fleet: Served) -> None:
    before = time.time() * 1000
    made = (await ban(fleet, model="llama3:8b", reason="wrong answers"))["ban"]
    found = await ask(fleet, "GET", "/bans")
    assert (found["success"], found["count"]) == (True, 1)
    (shown,) = found["bans"]
    about = {"serverId": "a", "model": "llama3:8b", "key": "a:llama3:8b", "type": "ban", "reason": "wrong answers"}
    assert shown.items() >= (about | {"why": "wrong answers", "expiresAt": None, "by": "anonymous"}).items()
    assert before - 50 <= shown["bannedAt"] <= time.time() * 1000 + 50
    assert "until it is lifted" in shown["next"]
    assert made.items() >= about.items()


async def test_a_cooldown_is_told_apart_and_says_when_it_ends(fleet: Served) -> None:
    cool(fleet, "a", "tiny:latest")
    (shown,) = (await ask(fleet, "GET", "/bans"))["bans"]
    assert (shown["type"], shown["reason"], shown["by"]) == ("cooldown", "answers slowly", None)
    assert shown["expiresAt"] - shown["bannedAt"] == pytest.approx(60_000, abs=1_000)
    assert shown["next"].startswith("ends by itself at 20")


async def test_a_ban_for_a_time_takes_milliseconds(fleet: Served) -> None:
    shown = (await ban(fleet, durationMs=90_000))["ban"]
    assert shown["expiresAt"] - shown["bannedAt"] == pytest.approx(90_000, abs=1_000)
    assert (shown["type"], shown["reason"]) == ("ban", "banned by an operator")


async def test_a_banned_pair_gets_nothing_until_it_is_lifted(fleet: Served) -> None:
    async def answered_by(model: str) -> set[str]:
        async with fleet.client() as client:
            body = {"model": model, "prompt": "x", "stream": False}
            return {(await client.post("/api/generate", json=body)).headers["x-fleet-server"] for _ in range(10)}

    await ban(fleet, "a", "TINY")
    assert await answered_by("tiny") == {"b"}
    await ban(fleet, "b", "registry.ollama.ai/library/tiny:latest")
    assert (await ask(fleet, "DELETE", "/bans/a/tiny"))["removed"] == 1
    assert await answered_by("tiny:latest") == {"a"}


async def test_a_second_ban_takes_the_place_of_the_first(fleet: Served) -> None:
    await ban(fleet, reason="first")
    await ban(fleet, reason="second", durationMs=60_000)
    (shown,) = (await ask(fleet, "GET", "/bans"))["bans"]
    assert shown["reason"] == "second"


async def test_lists_can_be_of_one_type_and_are_bounded(fleet: Served) -> None:
    await ban(fleet, "a", "tiny")
    await ban(fleet, "b", "tiny")
    cool(fleet, "a", "llama3:8b")
    assert await listed(fleet, "?type=cooldown") == [("a", "llama3:8b", "cooldown")]
    assert len(await listed(fleet, "?type=ban")) == 2
    found = await ask(fleet, "GET", "/bans?limit=1")
    assert (found["count"], [row["serverId"] for row in found["bans"]]) == (3, ["a"])


@pytest.fixture
async def banned(fleet: Served) -> Served:
    await ban(fleet, "a", "llama3:8b")
    await ban(fleet, "a", "ns/coder:7b")
    await ban(fleet, "b", "llama3:8b")
    cool(fleet, "a", "llama3:8b")
    return fleet


A8, A8C, A7, B8 = (
    ("a", "llama3:8b", "ban"),
    ("a", "llama3:8b", "cooldown"),
    ("a", "ns/coder:7b", "ban"),
    ("b", "llama3:8b", "ban"),
)
LIFTS = [
    # path, how many are removed, what is left, what the message says
    ("/bans", 4, set(), "Removed 4 bans"),
    ("/bans?type=cooldown", 1, {A8, A7, B8}, "Removed 1 bans"),
    ("/bans/server/a", 3, {B8}, "for server a"),
    ("/bans/server/a?type=ban", 2, {A8C, B8}, "for server a"),
    ("/bans/model/llama3:8b", 3, {A7}, "for model llama3:8b"),
    ("/bans/model/LLAMA3%3A8b", 3, {A7}, "for model LLAMA3:8b"),
    ("/bans/model/ns/coder:7b", 1, {A8, A8C, B8}, "ns/coder:7b"),
    ("/bans/model/ns%2Fcoder%3A7b", 1, {A8, A8C, B8}, "ns/coder:7b"),
    ("/bans/model/llama3", 0, {A8, A8C, A7, B8}, "No bans found for model"),
    ("/bans/model/not%20a%20name", 0, {A8, A8C, A7, B8}, "No bans found for model"),
    ("/bans/a/llama3:8b", 2, {A7, B8}, "a:llama3:8b"),
    ("/bans/a/llama3:8b?type=ban", 1, {A8C, A7, B8}, "a:llama3:8b"),
    ("/bans/a/ns%2Fcoder%3A7b?type=all", 1, {A8, A8C, B8}, "a:ns/coder:7b"),
]


@pytest.mark.parametrize(("path", "removed", "left", "says"), LIFTS)
async def test_bans_are_lifted_by_full_names(
    banned: Served, path: str, removed: int, left: set[tuple[str, str, str]], says: str
) -> None:
    answer = await ask(banned, "DELETE", path)
    assert (answer["success"], answer["removed"]) == (True, removed)
    assert says in answer["message"]
    assert set(await listed(banned)) == left


async def test_lifting_nothing_is_no_error_except_of_an_unknown_server(fleet: Served) -> None:
    assert (await ask(fleet, "DELETE", "/bans"))["message"] == "No bans to clear"
    assert (await ask(fleet, "DELETE", "/bans/server/a"))["message"] == "No bans found for server"
    assert (await ask(fleet, "DELETE", "/bans/server/zzz", status=404))["error"] == "server 'zzz' not found"
    assert (await ask(fleet, "DELETE", "/bans/a/nope"))["message"] == "No ban found for a:nope"
    cool(fleet, "a", "tiny:latest")
    assert (await ask(fleet, "DELETE", "/bans/a/tiny?type=ban"))["removed"] == 0


REFUSED = [
    # body, status, what the error says
    ({}, 400, "serverId"),
    ({"serverId": "a"}, 400, "model"),
    ({"serverId": "zzz", "model": "tiny"}, 404, "server 'zzz' not found"),
    ({"serverId": "a", "model": "not a name"}, 400, "model"),
    ({"serverId": "a", "model": ""}, 400, "model"),
    ({"serverId": "a", "model": 7}, 400, "model"),
    ({"serverId": "a", "model": "tiny", "durationMs": 0}, 400, "durationMs"),
    ({"serverId": "a", "model": "tiny", "durationMs": 10**15}, 400, "durationMs"),
    ({"serverId": "a", "model": "tiny", "durationMs": True}, 400, "durationMs"),
    ({"serverId": "a", "model": "tiny", "reason": "x" * 257}, 400, "reason"),
    ({"serverId": "a", "model": "tiny", "until": 5}, 400, "until"),
]


@pytest.mark.parametrize(("body", "status", "says"), REFUSED)
async def test_a_ban_that_makes_no_sense_is_refused(
    fleet: Served, body: dict[str, object], status: int, says: str
) -> None:
    answer = await ask(fleet, "POST", "/bans", body, status=status)
    assert says in answer["error"]
    assert await listed(fleet) == []


async def test_a_model_that_nobody_lists_can_be_banned(fleet: Served) -> None:
    await ban(fleet, "a", "future:1b")
    assert await listed(fleet) == [("a", "future:1b", "ban")]


async def test_when_there_is_no_room_the_answer_is_409_and_says_what_to_do(fleet: Served) -> None:
    fleet.system.scheduler.bans.limit = 1
    await ban(fleet)
    answer = await ask(fleet, "POST", "/bans", {"serverId": "b", "model": "tiny"}, status=409)
    assert answer["error"] == "no room for another ban"
    assert "lift some" in answer["details"]


@pytest.mark.parametrize("path", ["/bans?type=nonsense", "/bans?limit=0", "/bans?limit=x"])
async def test_a_query_that_makes_no_sense_is_refused(fleet: Served, path: str) -> None:
    await ask(fleet, "GET", path, status=400)


async def test_a_lift_of_an_unknown_type_lifts_nothing(fleet: Served) -> None:
    await ban(fleet)
    await ask(fleet, "DELETE", "/bans?type=nonsense", status=400)
    assert len(await listed(fleet)) == 1


async def test_what_was_kept_of_a_server_that_is_not_there_can_be_lifted(fleet: Served) -> None:
    gone = Pair(ServerId("ghost"), ModelName("tiny:latest"))
    fleet.system.scheduler.bans.add(gone, "from before", trio.current_time())
    assert (await ask(fleet, "DELETE", "/bans/server/ghost"))["removed"] == 1
