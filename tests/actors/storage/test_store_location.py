"""Where the store is, and that a fleet with one goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.storage.store_location import keeping, store_path
from actors.storage.writer import Store
from actors.system import open_system
from fleet.config import Config
from web.cli.demo import _Demo


def config(**store: Any) -> Config:
    return Config.model_validate({"store": store})


def test_the_store_lies_beside_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "my.yml"
    file.write_text("")
    assert store_path(config(), str(file)) == tmp_path / "etc" / "data" / "fleet.db"
    monkeypatch.chdir(tmp_path / "etc")
    assert store_path(config(), "my.yml") == tmp_path / "etc" / "data" / "fleet.db"


def test_without_a_file_it_lies_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_path(config(), "defaults (there is no config.yml here)").absolute() == tmp_path / "data" / "fleet.db"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/fleet.db", "/var/lib/fleet.db"),
        ("sqlite:///here/fleet.db", "here/fleet.db"),
        ("sqlite:///a.db?mode=ro", "a.db?mode=ro"),
        ("sqlite:///:memory:", ":memory:"),
    ],
)
def test_a_url_names_a_path_and_nothing_else(url: str, path: str) -> None:
    assert store_path(config(url=url), "config.yml") == Path(path)


async def test_a_fleet_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = config(url=f"sqlite:///{tmp_path}/state/fleet.db")
    async with keeping(settings, "", time.time) as journal, open_system(settings, journal=journal) as system:
        system.journal.audit({"what": "a line"})
        system.scheduler.memory.paused, system.scheduler.memory.paused_since = True, trio.current_time()
        system.journal.touch("queue", "paused")
    async with keeping(settings, "", time.time) as journal, open_system(settings, journal=journal) as system:
        assert system.scheduler.memory.paused
        assert [line["what"] for line in await journal.history(10)] == ["a line"]
        assert journal.view().state == "ok"


async def test_what_changed_just_before_the_end_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor had no turn: the last flush writes it. So it does when the fleet ends with an error."""

    async def rest(self: Store) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Store, "run", rest)
    settings = config(url=f"sqlite:///{tmp_path}/fleet.db")

    async def run() -> None:
        async with keeping(settings, "", time.time) as journal:
            journal.keep("thing", lambda key: {"is": key})
            journal.touch("thing", "a")
            raise RuntimeError("the fleet ends")

    with pytest.raises(RuntimeError, match="the fleet ends"):
        await run()
    async with keeping(settings, "", time.time) as journal:
        assert journal.stored == {"thing": {"a": {"is": "a"}}}


async def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with keeping(config(enabled=False), "", time.time) as journal:
        assert journal.view().state == "off"
    assert not await trio.Path("data").exists()


@pytest.mark.parametrize(("url", "kept"), [("", False), ("sqlite:///demo.db", True)])
async def test_a_demo_keeps_nothing_unless_it_is_told_where(url: str, kept: bool) -> None:
    async with _Demo(lambda line: None).around(config(url=url)) as whole:
        assert whole.store.enabled is kept
        assert len(whole.servers) == 3
