"""The health loop of a server crashes: once, and for ever. Nobody else notices."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import MockClock

import actors.servers.health_probe
from actors.servers.server_context import ServerContext
from actors.state.messages import Probed
from actors.state.servers import ServerCell
from fleet.scheduling.server_state import Health
from tests.kit.fleets.fleet import Client, chat, open_fleet


class Crashes:
    """The probes of server a raise while any are left; `at` says when they did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: float) -> None:
        self._probe = actors.servers.health_probe.probe
        self.left = left
        self.at: list[float] = []
        monkeypatch.setattr(actors.servers.health_probe, "probe", self._crash_or_probe)

    async def _crash_or_probe(self, context: ServerContext, cell: ServerCell) -> Probed | None:
        if cell.state.id == "a" and self.left > 0:
            self.left -= 1
            self.at.append(trio.current_time())
            raise RuntimeError("injected")
        return await self._probe(context, cell)


async def test_one_crash_and_the_rounds_go_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor health a crashed")
    async with open_fleet("a", "b", health={"interval": 10.0}) as fleet:
        crashes = Crashes(monkeypatch, 1)
        await trio.sleep(15.0)
        assert len(crashes.at) == 1
        assert fleet.cell("a").state.health is Health.HEALTHY
        rounds = fleet.cell("a").rounds
        await trio.sleep(60.0)
        assert fleet.cell("a").rounds - rounds >= 4
        fleet["a"].kill()
        await trio.sleep(60.0)
        assert fleet.cell("a").state.health is Health.UNHEALTHY


async def test_a_crash_loses_nobody_who_waits_for_the_round(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor health a crashed")
    async with open_fleet("a") as fleet:
        Crashes(monkeypatch, 1)
        began = trio.current_time()
        await fleet.system.probe(fleet.cell("a").state.id, 10.0)
        assert trio.current_time() - began < 5.0


async def test_a_crash_loop_counts_as_down_harms_no_sibling_and_is_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """The running stream goes on, new requests go elsewhere, and half a minute later the server has its next chance."""
    expected_errors += ["actor health a crashed", "server is given up"]
    health = {"interval": 5.0, "jitter": 0.0}
    async with open_fleet("a", "b", health=health) as fleet, trio.open_nursery() as nursery:
        running = Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=2000, pinned="a"), running)
        await running.first.wait()
        crashes = Crashes(monkeypatch, float("inf"))
        while fleet.cell("a").state.health is Health.HEALTHY:
            await trio.sleep(0.1)
        assert "crashing" in fleet.cell("a").state.why
        given_up, tried = trio.current_time(), len(crashes.at)
        rounds = fleet.cell("b").rounds
        await trio.sleep(28.0)
        assert len(crashes.at) == tried
        assert fleet.cell("b").rounds - rounds >= 5
        await fleet.system.exchange(chat(), other := Client())
        assert other.headers["x-fleet-server"] == "b"
        crashes.left = 0
        while fleet.cell("a").state.health is not Health.HEALTHY:
            await trio.sleep(0.1)
        assert 29.0 < trio.current_time() - given_up < 32.0
        while not running.finished:
            await trio.sleep(1.0)
        assert running.complete
        fleet.assert_nothing_left()


async def test_a_probe_without_a_descriptor_to_ask_with_blames_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_fleet("a", health={"interval": 10.0}) as fleet:
        rounds = fleet.cell("a").rounds

        async def exhausted() -> trio.abc.Stream:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(fleet["a"], "dial", exhausted)
            fleet["a"].host.reset_connections()
            await trio.sleep(75.0)
            assert fleet.cell("a").rounds > rounds + 5
            assert fleet.cell("a").state.health is Health.HEALTHY
