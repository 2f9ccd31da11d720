"""Following the configuration file: whoever edits it need not restart the fleet, nor tell it.

The directory is watched, not the file: editors and deployment tools replace files and links instead of writing into
them.
"""

from __future__ import annotations

import logging
import math
import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from watchfiles import awatch

if TYPE_CHECKING:
    from actors.config.settings import Settings
    from fleet.config import Config

log = logging.getLogger("fleet.config")

_DEBOUNCE: Final = 1_000
_STEP: Final = 100
"""Milliseconds of silence that end a change of several steps; it ends in `_DEBOUNCE` at the latest."""
_TIMEOUT: Final = 300
"""Milliseconds for which the waiting thread hears nothing of a cancellation."""
_AGAIN: Final = 5.0
"""Seconds after which a directory that cannot be watched is tried again, or a file that could not be read."""


class Watch:
    """Reloads when the file changes, while `reload.watch` says so. What is wrong with it is in `settings.trouble`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._on = False
        self._told = False
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Until cancelled, which takes 0.3 s at the most. Returns at once if the fleet was started without a file."""
        ref = self._settings.config_ref
        unfollow, self._on = ref.follow(self._turn), ref.current.reload.watch
        try:
            while self._settings.watchable:
                with trio.CancelScope() as self._scope:
                    while self._on:
                        if not await self._follow():
                            await trio.sleep(_AGAIN)
                    await trio.sleep_forever()
        finally:
            unfollow()

    def _turn(self, before: Config, config: Config) -> None:
        if config.reload.watch != self._on:
            self._on = config.reload.watch
            self._scope.cancel()

    async def _follow(self) -> bool:
        """True: another directory has taken the place of ours. False: none can be watched now, which is told once."""
        file = self._settings.file
        assert file is not None
        watched = await _identity(file.parent)
        changes = awatch(
            file.parent,
            watch_filter=None,
            debounce=_DEBOUNCE,
            step=_STEP,
            rust_timeout=_TIMEOUT,
            yield_on_timeout=True,
            recursive=False,
        )
        try:
            async with aclosing(changes):
                look_at = -math.inf
                async for changed in changes:
                    # The first time in any case: something may have changed before we watched.
                    if changed or trio.current_time() >= look_at:
                        await self._settings.check_file()
                        look_at = trio.current_time() + _AGAIN if self._settings.unread else math.inf
                    if self._told:
                        log.info("the configuration file is watched again")
                    self._told = False
                    if await _identity(file.parent) not in (watched, None):
                        return True  # the system goes on watching the old one, wherever that is now
        except (OSError, RuntimeError) as error:
            if not self._told:
                log.warning("the configuration file cannot be watched now, changes need a reload: %s", error)
            self._told = True
        return False


async def _identity(directory: Path) -> tuple[int, int] | None:
    """What tells one directory from another of the same name; None: there is none."""
    try:
        found = await trio.to_thread.run_sync(os.stat, directory, abandon_on_cancel=True)
    except OSError:
        return None
    return found.st_dev, found.st_ino
