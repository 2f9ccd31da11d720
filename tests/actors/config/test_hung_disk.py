"""The disk that the configuration lies on hangs: everybody hears of it in time, and goes on when it is back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.config import config_file, disk
from actors.security.key_file import KeyFile
from fleet.common.errors import BadRequest, DiskTimeout
from fleet.config import Loaded, load
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import Configured, configured
from web.app_reload import renew_all, renew_certificate

TLS = {"certificate": "/c.pem", "key": "/k.pem"}
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
            await here.settings.check_file()
        assert here.settings.unread
        mount.back.set()
        with trio.fail_after(30):
            await here.settings.check_file()
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
            await here.settings.check_file()
        assert here.settings.unread
        back.set()
        monkeypatch.setattr(disk, "PATIENCE", 30.0)
        await here.settings.check_file()
        assert here.settings.trouble is None
        assert here.system.config.queue.max_size == 6


async def test_a_change_that_needs_no_file_waits_for_nobody_s_disk(tmp_path: Path, mount: Mount) -> None:
    async with configured(tmp_path, "a", text=QUEUE) as here, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(here.settings.check_file)
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

    def slow(path: Path, text: str, wanted: Callable[[], bool]) -> None:
        begun.set()
        go_on.wait(60.0)
        write(path, text, wanted)

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


class Flush:
    """A disk that takes what is written and does not say so until it is back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back = threading.Event()
        self.under_way = 0
        self._fsync = os.fsync
        monkeypatch.setattr(disk, "PATIENCE", 0.3)
        monkeypatch.setattr(os, "fsync", self._hang)

    def _hang(self, descriptor: int) -> None:
        self.under_way += 1
        self.back.wait(60.0)
        self._fsync(descriptor)
        self.under_way -= 1


async def settled(flush: Flush, folder: Path) -> None:
    """The disk is back, and nothing is under way on it."""
    flush.back.set()
    with trio.fail_after(30):
        while flush.under_way or [each for each in await trio.Path(folder).iterdir() if each.name.endswith(".tmp")]:
            await trio.sleep(0.01)


async def test_a_save_that_was_given_up_does_not_land_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It landed when the disk was back, alone, and we took it for somebody else's change."""
    async with configured(tmp_path, "a", text=QUEUE) as here:
        before = here.path.read_text()
        await change(here, 7)
        flush = Flush(monkeypatch)
        with pytest.raises(DiskTimeout, match="writing the configuration file"):
            await here.settings.save(None)
        await settled(flush, tmp_path)
        assert here.path.read_text() == before
        monkeypatch.setattr(disk, "PATIENCE", 30.0)
        await here.settings.check_file()
        assert here.system.config.queue.max_size == 7
        await here.settings.save(None)
        assert "max_size: 7" in here.path.read_text()


async def test_one_save_is_written_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two whose disk hung, the first could have landed on top of the second."""
    async with configured(tmp_path, "a", text=QUEUE) as here:
        flush = Flush(monkeypatch)
        for size in (7, 8):
            await change(here, size)
            with pytest.raises(DiskTimeout):
                await here.settings.save(None)
        assert flush.under_way == 1
        monkeypatch.setattr(disk, "PATIENCE", 30.0)
        flush.back.set()
        await change(here, 9)
        await here.settings.save(None)
        await settled(flush, tmp_path)
        assert "max_size: 9" in here.path.read_text()


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"server": {"tls": {"certificate": "/c{}.pem", "key": "/k.pem"}}}, "server.tls"),
        ({"security": {"keys_file": "/keys{}.jsonl"}}, "security.keys_file"),
    ],
)
async def test_files_that_hang_keep_up_nobody_who_does_not_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], what: str
) -> None:
    """Each took a thread with it, and after four of them every change was refused, with words about some file."""
    back = threading.Event()

    def hang(*_: object) -> Any:
        back.wait(60.0)

    monkeypatch.setattr(config_file, "check_tls", hang)
    monkeypatch.setattr(KeyFile, "read", hang)
    monkeypatch.setattr(disk, "PATIENCE", 0.2)
    async with configured(tmp_path, "a", text=QUEUE) as here:
        try:
            for at in range(6):
                named = orjson.loads(orjson.dumps(section).replace(b"{}", b"%d" % at))
                with pytest.raises(DiskTimeout, match=f"reading .*{what}"):
                    await here.settings.change(named, dry=False)
            monkeypatch.setattr(disk, "PATIENCE", 30.0)
            await change(here, 7)
            assert here.system.config.queue.max_size == 7
        finally:
            back.set()


@pytest.mark.parametrize("section", [{"security": {"keys_file": "/keys.jsonl"}}, {"server": {"tls": TLS}}])
async def test_a_change_that_names_a_file_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any]
) -> None:
    """Nobody had a turn for as long as its file could not be read: ten seconds."""
    back, reached = threading.Event(), threading.Event()

    def hang(*_: object) -> Any:
        reached.set()
        back.wait(60.0)
        raise BadRequest("there is nothing")

    monkeypatch.setattr(config_file, "check_tls", hang)
    monkeypatch.setattr(KeyFile, "read", hang)
    monkeypatch.setattr(disk, "PATIENCE", 50.0)

    async def name_it(here: Configured) -> None:
        with suppress(BadRequest):
            await here.settings.change(section, dry=True)

    async with configured(tmp_path, "a", text=QUEUE) as here, trio.open_nursery() as nursery:
        try:
            nursery.start_soon(name_it, here)
            assert await trio.to_thread.run_sync(reached.wait, 30.0)
            with trio.fail_after(30):
                await change(here, 7)
        finally:
            back.set()
        assert here.system.config.queue.max_size == 7


async def test_certificates_and_keys_that_hang_do_not_hold_up_a_hangup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """The signal's task waited for them for ever, and no later signal was heard."""
    expected_errors.extend(("keys could not be read within", "the certificate stays as it was"))
    back = threading.Event()

    def hang(*_: object) -> Any:
        back.wait(60.0)

    renewed: list[object] = []
    edge = SimpleNamespace(renew_certificate=renewed.append)
    keys = tmp_path / "keys.jsonl"
    keys.write_text("")
    async with configured(tmp_path, "a", text=f"security: {{keys_file: {keys}}}\n") as here:
        monkeypatch.setattr(disk, "PATIENCE", 0.2)
        monkeypatch.setattr(KeyFile, "read", hang)
        monkeypatch.setattr("web.app_reload.secured", hang)
        threads = disk.FileThreads("reading the certificate")
        here.settings.renew_also(partial(renew_certificate, cast(Any, edge), here.system, threads))
        context = cast(Any, SimpleNamespace(system=here.system, settings=here.settings))
        try:
            with trio.fail_after(30):
                for _ in range(6):
                    await renew_all(context)
            others = trio.to_thread.current_default_thread_limiter()
            assert others.borrowed_tokens == 0
        finally:
            back.set()
        assert renewed == []
