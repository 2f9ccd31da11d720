"""A configuration of a thousand servers: changing it keeps nobody waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from actors.config import settings
from fleet.common.errors import Conflict
from fleet.common.ids import ServerId
from fleet.config import Config, ServerSpec
from tests.kit.fleets.configured import configured


async def test_a_change_is_worked_out_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    real = settings._checked

    def slow(*args: object) -> object:
        before = turns[0]
        for _ in range(50):
            trio.from_thread.run(trio.sleep, 0.001)  # the event loop lives while we work
        assert turns[0] > before
        return real(*args)  # type: ignore[arg-type]

    async with configured(tmp_path, "a") as here, trio.open_nursery() as nursery:
        turns.append(0)

        async def tick() -> None:
            while True:
                turns[0] += 1
                await trio.sleep(0.001)

        nursery.start_soon(tick)
        monkeypatch.setattr(settings, "_checked", slow)
        outcome = await here.settings.change({"queue": {"maxSize": 3}}, dry=False)
        assert [change.path for change in outcome.changes] == ["queue.max_size"]
        nursery.cancel_scope.cancel()


async def test_a_fleet_that_never_holds_still_is_told_to_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with configured(tmp_path, "a") as here:
        real, count = settings._checked, iter(range(1, 100))

        def restless(*args: object) -> object:
            spec = ServerSpec(id=ServerId(f"z{next(count)}"), url=f"http://127.0.0.1:{next(count)}")
            trio.from_thread.run_sync(here.system.add_server, spec)
            return real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(settings, "_checked", restless)
        before = here.system.config.queue
        with pytest.raises(Conflict):
            await here.settings.change({"queue": {"maxSize": 3}}, dry=False)
        assert here.system.config.queue == before
        assert len(here.system.servers) == 6


async def test_who_leaves_while_a_change_is_worked_out_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with configured(tmp_path, "a") as here:
        before, real = here.system.config, settings._checked

        def left(*args: object) -> object:
            trio.from_thread.run_sync(scope.cancel)
            return real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(settings, "_checked", left)
        with trio.CancelScope() as scope:
            await here.settings.change({"queue": {"maxSize": 3}}, dry=False)
        assert scope.cancelled_caught
        assert here.system.config is before
        monkeypatch.setattr(settings, "_checked", real)
        await here.settings.change({"queue": {"maxSize": 3}}, dry=False)  # the lock is free again
        assert here.system.config.queue.max_size == 3
        assert isinstance(here.system.config, Config)
