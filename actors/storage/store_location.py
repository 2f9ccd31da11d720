"""Where the fleet's state is kept over a restart: the store is opened before the fleet, and closed after it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.storage.journal import Journal

if TYPE_CHECKING:
    from fleet.config import Config

log = logging.getLogger("fleet.serve")

BESIDE: Final = Path("data") / "fleet.db"
HISTORY_BESIDE: Final = Path("data") / "history.db"


@asynccontextmanager
async def keeping(config: Config, source: str, wall: Callable[[], float]) -> AsyncIterator[Journal]:
    """The journal for `open_system`, over the configured store; what is left is written when the block ends.

    `wall`: seconds since 1970.
    Whatever is wrong with the store, the fleet runs: then the journal is one that keeps nothing, and says so.
    """
    if not config.store.enabled:
        yield Journal()
        return
    from actors.storage.writer import open_journal  # takes a while, and not everybody keeps anything

    journal, store = await open_journal(store_path(config, source), config.store.audit_lines, wall)
    if store is None:
        yield journal
        return
    log.info("what shall survive a restart is kept in %s", journal.standing.path)
    try:
        yield journal
    finally:
        await store.finish()


def store_path(config: Config, source: str) -> Path:
    """The store's file: what `store.url` names, else data/fleet.db beside the configuration file.

    Without such a file (`source` is then no path of one) it is in the working directory.
    """
    return _place(config.store.url, source, BESIDE)


def history_path(config: Config, source: str) -> Path:
    """The history's file, likewise: what `history.url` names, else data/history.db."""
    return _place(config.history.url, source, HISTORY_BESIDE)


def _place(url: str, source: str, beside: Path) -> Path:
    if url:
        return Path(url.removeprefix("sqlite:///"))
    file = Path(source)
    return file.absolute().parent / beside if file.is_file() else beside
