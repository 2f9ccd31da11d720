"""The configuration file is followed: real files, real time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from actors.config.file_watch import Watch
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import Configured, configured
from tests.kit.fleets.served import served
from tests.kit.suite.pace import soonest

QUEUE = "queue: {max_size: 5}\n"


@asynccontextmanager
async def watched(directory: Path, *servers: str, text: str = QUEUE) -> AsyncIterator[Configured]:
    """A running product that follows its file."""
    with trio.fail_after(60):
        async with configured(directory, *servers, text=text) as here, trio.open_nursery() as nursery:
            nursery.start_soon(Watch(here.settings).run)
            await trio.sleep(0.2)  # until the system watches; a change before that would be seen by nobody
            yield here
            nursery.cancel_scope.cancel()


async def until(true: Callable[[], object]) -> None:
    """Fails by the time limit of `watched`."""
    while not true():
        await trio.sleep(0.02)


def size(here: Configured) -> int:
    return here.system.config.queue.max_size


async def test_a_file_that_is_replaced_takes_effect(tmp_path: Path) -> None:
    async with watched(tmp_path, "a") as here:
        here.rewrite(here.path.read_text().replace("5}", "6}"))
        await until(lambda: size(here) == 6)
        here.path.write_text(here.path.read_text().replace("6}", "7}"))
        await until(lambda: size(here) == 7)


async def test_a_link_that_is_turned_to_another_file_takes_effect(tmp_path: Path) -> None:
    """As container platforms update what they mount."""
    async with watched(tmp_path) as here:
        text = here.path.read_text()
        for number in (6, 7):
            folder = tmp_path / f"..{number}"
            folder.mkdir()
            (folder / "config.yml").write_text(text.replace("5}", f"{number}}}"))
        here.path.unlink()
        here.path.symlink_to(Path("..data") / "config.yml")
        (tmp_path / "..data").symlink_to("..6")
        await until(lambda: size(here) == 6)
        (tmp_path / "..next").symlink_to("..7")
        (tmp_path / "..next").rename(tmp_path / "..data")
        await until(lambda: size(here) == 7)


async def test_half_of_a_file_is_not_believed(tmp_path: Path) -> None:
    async with watched(tmp_path, "a") as here:
        text = here.path.read_text().replace("5}", "6}")
        seen: list[int] = []
        here.system.config_ref.follow(lambda _, config: seen.append(len(config.servers)))
        with here.path.open("w") as file:  # empties it, which would mean: no servers, defaults
            cut = text.index("servers:")
            for piece in (text[:20], text[20:cut], text[cut:]):
                await trio.sleep(0.15)  # longer than the silence that ends a change for the system
                file.write(piece)
                file.flush()
        await until(lambda: size(here) == 6)
        assert set(seen) == {1}
        assert "a" in here.system.servers


async def test_a_bad_file_changes_nothing_warns_once_and_is_trouble_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        records = [each for each in caplog.records if each.name == "fleet.config" and each.levelno == logging.WARNING]
        return [each.getMessage() for each in records]

    async with watched(tmp_path, "a") as here:
        before, good = here.system.config, here.path.read_text()
        here.rewrite(good + "retry: {max_attempts: 0, typo: 1}\n")
        await until(lambda: here.settings.trouble)
        (warning,) = warnings()
        assert "retry.max_attempts" in warning
        assert "retry.typo" in warning
        (tmp_path / "beside.txt").write_text("something else changes")
        await trio.sleep(0.5)
        assert here.system.config is before
        assert len(warnings()) == 1
        shown = (await ask(here, "GET", "/config"))["trouble"]
        assert {each["path"] for each in shown["problems"]} == {"retry.max_attempts", "retry.typo"}
        since = here.settings.trouble.since  # type: ignore[union-attr]
        here.path.unlink()
        await until(lambda: len(warnings()) == 2)
        assert "there is no file" in warnings()[1]
        assert here.settings.trouble is not None
        assert here.settings.trouble.since == since
        here.rewrite(good)
        await until(lambda: here.settings.trouble is None)
        assert here.system.config is before


async def test_an_empty_file_is_a_file_that_is_being_written(tmp_path: Path) -> None:
    async with watched(tmp_path, "a") as here:
        here.path.write_text("\n")
        await until(lambda: here.settings.trouble)
        assert "is empty" in here.settings.trouble.text  # type: ignore[union-attr]
        assert list(here.system.servers) == ["a"]
        await ask(here, "POST", "/config/reload", {})  # whoever says so means it
        assert here.system.config.servers == ()


async def test_our_own_save_is_no_news(tmp_path: Path) -> None:
    async with watched(tmp_path, "a") as here:
        await ask(here, "PATCH", "/config/queue", {"maxSize": 6})
        told: list[object] = []
        here.system.config_ref.follow(lambda *configs: told.extend(configs))
        await ask(here, "POST", "/config/save", {})
        await trio.sleep(0.8)
        assert told == []
        assert size(here) == 6


async def test_following_can_be_switched_off_and_on(tmp_path: Path) -> None:
    async with watched(tmp_path, "a") as here:
        await ask(here, "PATCH", "/config/reload", {"watch": False})
        text = here.path.read_text()
        await trio.sleep(0.5)
        here.rewrite(text.replace("5}", "6}"))
        await trio.sleep(0.8)
        assert size(here) == 5
        await ask(here, "PATCH", "/config/reload", {"watch": True})
        await until(lambda: size(here) == 6)


async def test_a_directory_that_is_gone_is_told_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with configured(home, "a", text=QUEUE) as here:
        here.path.unlink()
        home.rmdir()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watch(here.settings).run)
            with trio.fail_after(20):
                await until(lambda: any("cannot be watched" in each.getMessage() for each in caplog.records))
            nursery.cancel_scope.cancel()


async def test_a_directory_whose_place_another_one_took_was_followed_no_longer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with watched(home) as here:
        text = here.path.read_text()
        home.rename(tmp_path / "old")
        await trio.sleep(0.5)
        home.mkdir()
        here.path.write_text(text.replace("5}", "6}"))
        await until(lambda: size(here) == 6)
        here.rewrite(text.replace("5}", "7}"))
        await until(lambda: size(here) == 7)


async def test_a_fleet_without_a_file_watches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.config.file_watch.awatch", lambda *_, **__: 1 / 0)
    async with served("a") as here:
        from actors.config.settings import Settings

        with trio.fail_after(20):
            await Watch(Settings(here.system)).run()


async def test_watching_ends_soon_when_it_is_cancelled(tmp_path: Path) -> None:
    async with configured(tmp_path, text=QUEUE) as here:

        async def ended() -> float:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Watch(here.settings).run)
                await trio.sleep(0.1)
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            return trio.current_time() - began

        assert await soonest(ended, 1.0) < 1.0
