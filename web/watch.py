"""Following the configuration file: whoever edits it need not restart the fleet, nor tell it.

The directory is watched, not the file: editors and deployment tools replace files and links instead of writing into
them.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio
from watchfiles import awatch

if TYPE_CHECKING:
    from fleet.config import Config
    from web.settings import Settings

log = logging.getLogger("fleet.config")

_DEBOUNCE: Final = 1_000
_STEP: Final = 100
"""Milliseconds of silence that end a change of several steps; it ends in `_DEBOUNCE` at the latest."""
_TIMEOUT: Final = 300
"""Milliseconds for which the waiting thread hears nothing of a cancellation."""


class Watch:
    """Reloads when the file changes, while `reload.watch` says so. What is wrong with it is in `settings.trouble`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._on = settings.system.config.reload.watch
        self._scope = trio.CancelScope()
        settings.followers.append(self._turn)

    async def run(self) -> None:
        """Until cancelled, which takes 0.3 s at the most. Returns at once if the fleet was started without a file."""
        while self._settings.watchable:
            with trio.CancelScope() as self._scope:
                if self._on:
                    await self._follow()
                await trio.sleep_forever()

    def _turn(self, config: Config) -> None:
        if config.reload.watch != self._on:
            self._on = config.reload.watch
            self._scope.cancel()

    async def _follow(self) -> None:
        """Returns if the directory cannot be watched, which is told."""
        file = self._settings.file
        assert file is not None
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
                watching = False
                async for changed in changes:
                    # The first time in any case: something may have changed before we watched.
                    if changed or not watching:
                        await self._settings.look()
                    watching = True
        except (OSError, RuntimeError) as error:
            log.warning("the configuration file cannot be watched, changes need a reload: %s", error)
