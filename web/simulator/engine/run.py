"""A job of the pure server, waited for on Trio's clock."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import trio

from fleet.simulator import JobFailure, SimServer, Stage, Stats, Work, stats_of

_WAITING: Final = frozenset({Stage.PENDING, Stage.LOADING, Stage.QUEUED, Stage.PREFILL})


class RunnerGone(Exception):
    """The runner died with this job on it, or was never there: `failure` says which, where the job knows."""

    def __init__(self, failure: JobFailure | None = None) -> None:
        super().__init__(failure)
        self.failure = failure


class JobRun:
    """One job under way. No driver is needed: every timer a job waits for is its own, or somebody notifies it."""

    def __init__(self, server: SimServer, work: Work) -> None:
        self._server = server
        self._stirred = trio.Event()
        self.crash_after: int | None = None
        """Kill the runner when this many tokens are out."""
        self.job = server.submit(work, trio.current_time(), self._stir)

    def _stir(self) -> None:
        self._stirred.set()

    def __enter__(self) -> JobRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.leave(self.job, trio.current_time())

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.job.work.tokens

    async def ready(self) -> None:
        """Until the prompt is evaluated, or all is done. Raises `RunnerGone`. Cancellation loses nothing."""
        while self.job.stage in _WAITING:
            self._stirred = trio.Event()
            with trio.move_on_at(self.job.wake_at):
                await self._stirred.wait()
            self._server.advance(trio.current_time())
        self._reach(0)

    async def reach(self, index: int) -> None:
        """Until token `index` is there. Raises `RunnerGone`."""
        self._reach(index)
        # Sending is a checkpoint too: no need for two when late. Company that comes meanwhile makes it due later.
        while (due := self.job.token_at(index)) > trio.current_time():  # noqa: ASYNC110
            await trio.sleep_until(due)
        self._check()

    def finish(self) -> Stats:
        """All tokens were taken: free the slot. Raises `RunnerGone`."""
        self._server.finish(self.job, trio.current_time())
        self._check()
        return stats_of(self.job)

    def _reach(self, index: int) -> None:
        if self.crash_after == index and self.job.runner is not None:
            self._server.crash(self.job.runner, trio.current_time())
        self._check()
        if self.crash_after == index:
            raise RunnerGone

    def _check(self) -> None:
        if self.job.stage is Stage.FAILED:
            raise RunnerGone(self.job.failure)
