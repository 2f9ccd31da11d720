"""Background work on models: pulls, copies, warm-ups, unloads, deletions."""

from __future__ import annotations

import trio

from actors.cells import FleetCell


class JobBoard:
    """All jobs of the fleet."""

    def __init__(self, fleet: FleetCell) -> None:
        self._fleet = fleet

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the jobs' tasks until cancelled."""
        task_status.started()
        await trio.sleep_forever()
