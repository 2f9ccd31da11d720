"""A model that was pulled or made on a server behind our back is found when somebody asks for it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fleet.simulator.files import model_file
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

RARE: dict[str, Any] = {"interval": 1000.0, "jitter": 0.0}


def pull(fleet: Fleet, server: str, model: str = "new:latest") -> None:
    fleet[server].host.server.shelf.put(model_file(model, 10**9))


class Looks:
    """Rounds of probes of each server since this was made."""

    def __init__(self, fleet: Fleet, *servers: str) -> None:
        self._hosts = {name: fleet[name].host for name in servers}
        self._before = self._rounds()

    def _rounds(self) -> list[int]:
        return [len(host.seen("/api/tags")) for host in self._hosts.values()]

    @property
    def made(self) -> list[int]:
        return [now - then for now, then in zip(self._rounds(), self._before, strict=True)]


async def test_a_model_that_came_behind_our_back_is_served_at_once(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", health=RARE) as fleet:
        await trio.sleep(5.0)
        pull(fleet, "b")
        await fleet.system.exchange(chat("new"), client := Client())
        assert client.complete
        assert client.headers["x-fleet-server"] == "b"
        assert client.headers["x-fleet-attempts"] == "1"
        fleet.assert_nothing_left()


async def test_an_unknown_model_is_unknown_after_one_look(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", health=RARE) as fleet:
        await trio.sleep(5.0)
        looks = Looks(fleet, "a", "b")
        for _ in range(10):
            assert await error_of(fleet, chat("nope")) == "ModelNotFound"
        assert looks.made == [1, 1]


async def test_all_who_ask_for_it_share_one_look(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", slots=100, health=RARE) as fleet:
        await trio.sleep(5.0)
        pull(fleet, "a")
        looks = Looks(fleet, "a", "b")
        clients = [Client() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat("new"), client)
        assert all(client.complete for client in clients)
        assert max(looks.made) <= 2, "one for all who asked, and one for what they have loaded"


async def test_a_flood_of_unknown_names_is_no_storm_of_probes(autojump_clock: MockClock) -> None:
    """However many names, a server is looked at once a second, and the memory of names is bounded."""
    async with open_fleet("a", "b", health=RARE) as fleet:
        await trio.sleep(5.0)
        looks, began = Looks(fleet, "a", "b"), trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(error_of, fleet, chat(f"nope-{number}"))
                if number % 100 == 0:
                    await trio.sleep(0.25)
        seconds = trio.current_time() - began
        assert max(looks.made) <= seconds + 1
        lookout = fleet.system.model_lookup
        assert len(lookout._sought) + len(lookout._missed) <= 512
        fleet.assert_nothing_left()


async def test_a_name_that_was_missed_is_looked_for_again_a_second_later(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=RARE) as fleet:
        await trio.sleep(5.0)
        assert await error_of(fleet, chat("new")) == "ModelNotFound"
        pull(fleet, "a")
        assert await error_of(fleet, chat("new")) == "ModelNotFound"
        await trio.sleep(1.1)
        assert await error_of(fleet, chat("new")) == ""


async def test_a_server_that_does_not_answer_delays_nobody_for_long(autojump_clock: MockClock) -> None:
    """What the others have is served as soon as it is found; for what nobody has the look ends after two seconds."""
    async with open_fleet("a", "b", health=RARE) as fleet:
        await trio.sleep(5.0)
        fleet["a"].host.faults.set("all:hang-before-headers")
        pull(fleet, "b")
        began = trio.current_time()
        await fleet.system.exchange(chat("new", tokens=1), client := Client())
        assert client.headers["x-fleet-server"] == "b"
        assert client.complete
        began = trio.current_time()
        assert await error_of(fleet, chat("nope")) == "ModelNotFound"
        assert trio.current_time() - began <= 2.0


async def test_known_models_wait_for_no_look(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=RARE) as fleet, trio.open_nursery() as nursery:
        await trio.sleep(5.0)
        await fleet.system.exchange(chat("m"), Client())
        fleet["a"].host.faults.set("all:hang-before-headers,paths=/api/tags")
        nursery.start_soon(error_of, fleet, chat("nope"))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await fleet.system.exchange(chat("m", tokens=1), client := Client())
        assert client.complete
        assert trio.current_time() - began < 1.0


async def test_who_leaves_during_the_look_takes_nobody_along(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=RARE) as fleet, trio.open_nursery() as nursery:
        await trio.sleep(5.0)
        pull(fleet, "a")
        fleet["a"].host.faults.set("all:slow-drip:0.2,paths=/api/tags")
        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await error_of(fleet, chat("new"))

        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        client = Client()
        nursery.start_soon(fleet.system.exchange, chat("new"), client)
        await trio.testing.wait_all_tasks_blocked()
        leaving.cancel()
        with trio.fail_after(20):
            await client.first.wait()


async def test_dead_servers_are_left_to_their_own_rounds(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", health={**RARE, "failures": 1, "max_backoff": 5000.0}) as fleet:
        fleet["a"].kill()
        await fleet.system.probe(fleet.cell("a").state.id, 10.0)
        await trio.sleep(5.0)
        dialled = fleet["a"].dials
        began = trio.current_time()
        for number in range(20):
            assert await error_of(fleet, chat(f"nope-{number}")) == "ModelNotFound"
            await trio.sleep(0.5)
        assert fleet["a"].dials == dialled
        assert trio.current_time() - began < 12.0


async def test_a_fleet_that_shuts_down_says_so_to_who_waited_for_a_look(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=RARE) as fleet, trio.open_nursery() as nursery:
        await trio.sleep(5.0)
        fleet["a"].host.faults.set("all:hang-before-headers,paths=/api/tags")
        errors = []

        async def ask() -> None:
            errors.append(await error_of(fleet, chat("nope")))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        fleet.system.drain()
        await trio.sleep(3.0)
        assert errors == ["ShuttingDown"]


async def test_a_crash_of_the_lookout_strands_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor model lookup crashed")
    async with open_fleet("a", health=RARE) as fleet:
        await trio.sleep(5.0)
        pull(fleet, "a")
        left = [1]
        look = fleet.system.model_lookup._look

        async def crash(names: Any, scope: Any) -> None:
            if left.pop() if left else 0:
                raise RuntimeError("injected")
            await look(names, scope)

        monkeypatch.setattr(fleet.system.model_lookup, "_look", crash)
        assert await error_of(fleet, chat("new")) == "ModelNotFound"
        await trio.sleep(3.0)
        assert await error_of(fleet, chat("new")) == ""
