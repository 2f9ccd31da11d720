"""The disk that the configuration lies on hangs: everybody hears of it in time, and goes on when it is back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.config import config_file, disk
from fleet.common.errors import DiskTimeout
from fleet.config import Loaded, load
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import Configured, configured

QUEUE = "queue: {max_size: 5}\n"


class Mount:
    """A mount whose reads hang until it is back."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self._read = config_file.read

    def read(self, path: Path) -> str:
        self.back.wait(60.0)
        return self._read(path)


@pytest.fixture
def mount(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    mount = Mount()
    monkeypatch.setattr(disk, "PATIENCE", 0.3)
    monkeypatch.setattr(config_file, "read", mount.read)
    yield mount
    mount.back.set()


async def change(here: Configured, size: int) -> None:
    await here.settings.change({"queue": {"max_size": size}}, dry=False)


async def test_a_reload_a_save_and_a_look_end_in_time(tmp_path: Path, mount: Mount) -> None:
    """They waited for ever, and so did every change behind them."""
    async with configured(tmp_path, "a", text=QUEUE) as here:
        with trio.fail_after(30):
            for path in ("/config/reload", "/config/save"):
                said = await ask(here, "POST", path, {}, status=503)
                assert "within" in said["error"]
                assert "mount" in said["details"]
            await here.settings.look()
        assert here.settings.unread
        mount.back.set()
        with trio.fail_after(30):
            await here.settings.look()
        assert here.settings.trouble is None


async def test_a_text_whose_check_took_too_long_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificate or keys may lie on a mount that hung; it was refused until somebody altered it."""
    async with configured(tmp_path, "a", text=QUEUE) as here:
        back = threading.Event()

        def slow(*given: Any, **more: Any) -> Loaded:
            back.wait(60.0)
            return load(*given, **more)

        monkeypatch.setattr(disk, "PATIENCE", 0.3)
        monkeypatch.setattr("actors.config.settings.load", slow)
        here.rewrite(here.path.read_text().replace("max_size: 5", "max_size: 6"))
        with trio.fail_after(30):
            await here.settings.look()
        assert here.settings.unread
        back.set()
        monkeypatch.setattr(disk, "PATIENCE", 30.0)
        await here.settings.look()
        assert here.settings.trouble is None
        assert here.system.config.queue.max_size == 6


async def test_a_change_that_needs_no_file_waits_for_nobody_s_disk(tmp_path: Path, mount: Mount) -> None:
    async with configured(tmp_path, "a", text=QUEUE) as here, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(here.settings.look)
        await wait_all_tasks_blocked()  # the first reads, the others wait for their turn
        with trio.fail_after(30):
            while True:
                try:
                    await change(here, 7)
                    break
                except DiskTimeout:
                    await trio.sleep(0.01)
        assert here.system.config.queue.max_size == 7
        nursery.cancel_scope.cancel()


async def test_disks_that_hang_leave_threads_to_others(tmp_path: Path, mount: Mount) -> None:
    async with configured(tmp_path, "a", text=QUEUE) as here:
        for _ in range(8):
            with pytest.raises(DiskTimeout):
                await here.settings.reload(None, dry=False)
        threads = trio.to_thread.current_default_thread_limiter()
        assert threads.borrowed_tokens == 0


async def test_a_save_whose_client_leaves_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was new, and what we knew of it old: the next save refused to overwrite our own words."""
    begun, go_on, write = threading.Event(), threading.Event(), config_file.write

    def slow(path: Path, text: str) -> None:
        begun.set()
        go_on.wait(60.0)
        write(path, text)

    async with configured(tmp_path, "a", text=QUEUE) as here:
        await change(here, 7)
        monkeypatch.setattr(config_file, "write", slow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.settings.save, None)
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
            go_on.set()
        await change(here, 8)
        await here.settings.save(None)
        assert "max_size: 8" in here.path.read_text()
