"""The file of keys: followed while running, never believed when bad, written whole and for nobody else's eyes."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from actors.security import key_file
from actors.security.api_keys import ApiKeys
from actors.security.key_file import KeyFile, KeysUnusable
from fleet.config import Config
from fleet.security.api_keys import StoredKey, digest_of, written
from fleet.security.roles import Identity, Role
from web.security import api_key_auth


def key(name: str, **more: Any) -> StoredKey:
    return StoredKey(name, Role.CLIENT, digest_of(f"secret of {name}"), **more)


def put(path: Path, *keys: StoredKey, text: str | None = None, mode: int = 0o600) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(written(keys) if text is None else text)
    fresh.chmod(mode)
    fresh.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def looked(file: KeyFile) -> bool:
    return file.take(file.read())


def test_a_file_is_read_again_when_it_has_changed_and_not_otherwise(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path, key("a"))
    file = KeyFile(str(path))
    assert looked(file)
    assert file.keys == (key("a"),)
    reading = key_file.read
    reads: list[str] = []

    def noted(path: str) -> tuple[StoredKey, ...]:
        reads.append(path)
        return reading(path)

    monkeypatch.setattr(key_file, "read", noted)
    assert not looked(file)
    assert reads == []
    put(path, key("a"), key("b"))
    assert looked(file)
    assert [each.name for each in file.keys] == ["a", "b"]
    path.touch()
    assert not looked(file), "the same keys again are no change"
    assert len(reads) == 2


@pytest.mark.parametrize("text", ["nonsense hunter2", '{"name": "hunter2"}', "\udcff"])
def test_a_bad_file_changes_nothing_and_is_told_once(
    text: str, path: Path, expected_errors: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected_errors.append("the keys stay as they were")
    put(path, key("a"))
    file = KeyFile(str(path))
    looked(file)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert not looked(file)
    assert not looked(file)
    assert file.keys == (key("a"),)
    assert len([line for line in caplog.records if line.levelno == logging.ERROR]) == 1
    assert "hunter2" not in caplog.text
    put(path, key("b"))
    assert looked(file)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_of_the_ordinary_kind_changes_nothing(
    make: Callable[[Path], None], path: Path, expected_errors: list[str]
) -> None:
    expected_errors.append("the keys stay as they were")
    put(path, key("a"))
    file = KeyFile(str(path))
    looked(file)
    path.unlink()
    make(path)
    assert not looked(file)
    assert file.keys == (key("a"),)


def test_a_file_that_is_gone_changes_nothing_and_one_that_comes_is_read(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile(str(path))
    assert not looked(file)
    assert not file.keys
    put(path, key("a"))
    assert looked(file)
    path.unlink()
    assert not looked(file)
    assert file.keys == (key("a"),)
    assert "its keys stay in use" in caplog.text


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_a_file_that_others_can_read_or_change_is_warned_of(
    mode: int, warned: bool, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(path, key("a"), mode=mode)
    file = KeyFile(str(path))
    looked(file)
    looked(file)
    told = [line.getMessage() for line in caplog.records if "chmod 600" in line.getMessage()]
    assert len(told) == warned
    assert all(f"{mode:04o}" in line for line in told)
    assert file.keys == (key("a"),)


def test_a_file_is_written_whole_with_mode_0600_and_nothing_is_left_beside_it(path: Path) -> None:
    key_file.change(str(path), lambda known: (*known, key("a")))
    key_file.change(str(path), lambda known: (*known, key("b")))
    assert key_file.read(str(path)) == (key("a"), key("b"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_change_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, key("a"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        key_file.change(str(path), lambda known: ())
    assert key_file.read(str(path)) == (key("a"),)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_bad_file_is_not_overwritten(path: Path) -> None:
    path.write_text("my shopping list")
    with pytest.raises(KeysUnusable, match="line 1"):
        key_file.change(str(path), lambda known: (*known, key("a")))
    assert path.read_text() == "my shopping list"


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    path.symlink_to(real / "k.jsonl")
    key_file.change(str(path), lambda known: (key("a"),))
    assert path.is_symlink()
    assert key_file.read(str(real / "k.jsonl")) == (key("a"),)


def test_two_who_change_it_at_one_time_lose_nothing(path: Path) -> None:
    def add(at: int) -> None:
        for more in range(10):
            name = f"k{at}-{more}"
            key_file.change(str(path), lambda known, name=name: (*known, key(name)))  # type: ignore[misc]

    threads = [threading.Thread(target=add, args=(at,)) for at in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(key_file.read(str(path))) == 40


def running(path: Path) -> Any:
    config = Config.model_validate({"security": {"keys_file": str(path)}})
    return SimpleNamespace(config=config, keys=ApiKeys(), draining=False)


def known(system: Any, secret: str) -> str:
    return api_key_auth.identity([(b"x-api-key", secret.encode())], system).name


async def test_a_running_fleet_follows_the_file(path: Path) -> None:
    system = running(path)
    put(path, key("a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(system.keys.follow, system, 0.01)
        with trio.fail_after(20):
            while known(system, "secret of a") != "a":
                await trio.sleep(0.005)
            before = system.keys.changes
            put(path, key("a", revoked="2026-01-01T00:00:00Z"), key("b"))
            while known(system, "secret of b") != "b":
                await trio.sleep(0.005)
        assert known(system, "secret of a") == "anonymous"
        assert system.keys.changes > before
        nursery.cancel_scope.cancel()


async def test_a_disk_that_hangs_leaves_the_fleet_with_the_keys_it_has(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path, key("a"))
    system = running(path)
    assert known(system, "secret of a") == "a"
    hang = threading.Event()
    monkeypatch.setattr(KeyFile, "read", lambda self: cast(None, hang.wait(5)))
    with trio.move_on_after(0.05):
        await system.keys.refresh(str(path))
    hang.set()
    assert known(system, "secret of a") == "a"


async def test_two_fleets_in_one_process_know_nothing_of_each_others_keys(path: Path) -> None:
    put(path, key("a"))
    one, other = running(path), running(path)
    assert known(one, "secret of a") == "a"
    put(path, key("b"))
    assert known(other, "secret of b") == "b", "it reads the file itself"
    assert known(one, "secret of b") == "anonymous"
    put(path, key("c"))
    await one.keys.refresh(str(path))
    assert (one.keys.changes, other.keys.changes) == (1, 0)
    assert (known(one, "secret of c"), known(other, "secret of c")) == ("c", "anonymous")


def test_the_ring_is_made_once_per_configuration_and_content(path: Path) -> None:
    put(path, key("a"))
    system = running(path)
    first = api_key_auth.ring_of(system)
    assert api_key_auth.ring_of(system) is first
    other = system.config.security.model_copy(update={"keys_file": ""})
    assert system.keys.ring(other).find(b"secret of a") is None
    assert first.find(b"secret of a") == Identity("a", Role.CLIENT)
