"""Configuration files on disk: whole or not at all, and nothing left lying around."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from actors.config import config_file
from fleet.common.errors import BadRequest, NotFound
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import configured


def full(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod", "open"])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yml"
    path.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(f"actors.config.config_file.os.{step}", full)
        with pytest.raises(config_file.NotSaved, match=r"config\.yml cannot be written: No space"):
            config_file.write(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["config.yml"]


def test_a_file_changes_in_one_step_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    config_file.write(path, "one")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("one", 0o600)
    path.chmod(0o644)
    with path.open() as reader:
        config_file.write(path, "two")
        assert reader.read() == "one"  # whoever reads it meanwhile reads all of the old one
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("two", 0o644)


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("real")
    link = tmp_path / "config.yml"
    link.symlink_to(tmp_path / "real")
    with pytest.raises(BadRequest):  # `allowed` resolves; a link that appears after that is somebody's trick
        config_file.read(link)
    config_file.write(link, "new")
    assert (tmp_path / "real").read_text() == "real"
    assert not link.is_symlink()


@pytest.mark.parametrize(("content", "text"), [(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"), (b"", "")])
def test_line_ends_and_marks_of_other_systems_are_nothing_new(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_bytes(content)
    assert config_file.read(path) == text


def test_what_is_not_there_or_no_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        config_file.read(tmp_path / "none.yml")
    with pytest.raises(BadRequest):
        config_file.read(tmp_path)
    with pytest.raises(BadRequest):
        config_file.write(tmp_path / "no" / "none.yml", "x")
    with pytest.raises(BadRequest):
        config_file.write(tmp_path / "big.yml", "x" * (2**20 + 1))
    assert os.listdir(tmp_path) == []


async def test_a_save_that_failed_is_told_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with configured(tmp_path, "a") as here:
        await ask(here, "PATCH", "/config/queue", {"maxSize": 6})
        with monkeypatch.context() as patch:
            patch.setattr("actors.config.config_file.os.replace", full)
            answer = await ask(here, "POST", "/config/save", {}, status=500)
            assert "No space" in answer["error"]
        assert (await ask(here, "GET", "/config"))["unsaved"] == ["queue.max_size"]
        await ask(here, "POST", "/config/save", {})
        assert (await ask(here, "GET", "/config"))["unsaved"] == []
