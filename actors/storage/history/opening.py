"""Where the history is, and for how long: its actor is made before the fleet, and ended after it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from actors.kit.clock import Clock
from actors.storage.database_file import StoreFile
from actors.storage.store_location import history_path

if TYPE_CHECKING:
    from actors.storage.history.queries import History
    from fleet.config import Config

log = logging.getLogger("fleet.serve")


@asynccontextmanager
async def recording(config: Config, source: str, clock: Clock) -> AsyncIterator[History | None]:
    """The history for `open_system`, if there is to be one; what waits is written when the block ends.

    The file is opened by the actor itself, with its first batch: whatever is wrong with it, the fleet runs.
    """
    if not config.history.enabled:
        yield None
        return
    from actors.storage.history.database import HistoryDatabase  # takes a while, and not everybody keeps anything
    from actors.storage.history.queries import History, HistoryQueries
    from actors.storage.history.reader import HistoryReader
    from actors.storage.history.recorder import HistoryRecorder

    file = StoreFile(history_path(config, source), clock.wall)
    recorder = HistoryRecorder(HistoryDatabase(file), clock, config, str(file.path))
    log.info("finished requests are kept in %s", file.path)
    queries = HistoryQueries(recorder, HistoryReader(file.path))
    try:
        yield History(recorder, queries)
    finally:
        await recorder.finish()
        await queries.close()
