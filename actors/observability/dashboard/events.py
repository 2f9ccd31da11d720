"""What those who watch hear beside the figures: alerts, the text on the fleet's state, jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actors.observability.dashboard.alert_ring import EVENT as ALERT
from actors.observability.dashboard.alert_ring import MOST as MOST_ALERTS
from actors.observability.dashboard.alert_ring import RESYNC
from actors.observability.dashboard.subscriber import Update, encoded
from fleet.common.times import iso_read
from fleet.observability.dashboard.server_rows import ServerStatus

if TYPE_CHECKING:
    from actors.jobs.job import Job
    from actors.observability.ai_status import AiStatus
    from actors.observability.alert_monitor import Monitor
    from actors.observability.dashboard.sources import FeedSources
    from actors.observability.dashboard.subscriber import Subscriber
    from fleet.observability.alerting.alert import Alert

AI: Final = "ai_status_update"
JOB: Final = "job_update"
_JOBS_EVERY: Final = 0.5
"""Seconds between two looks at the jobs."""


class News:
    """Told once to everybody; who joins hears the last of each first."""

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources
        self._text: AiStatus | None = None
        self._jobs: dict[str, tuple[object, Update]] = {}
        self._last_number: int | None = None
        self._looked = 0.0

    def rest(self) -> None:
        """Nobody watches."""
        self._jobs.clear()
        self._last_number = None

    def greet(self, viewer: Subscriber) -> None:
        """What somebody who has just come should know."""
        if (text := self._sources.status_writer.latest) is not None:
            viewer.replace(AI, self._of_text(text))
        for key, (_, update) in self._jobs.items():
            viewer.replace(key, update)
        viewer.greet(self._firing())

    def changes(self, now: float) -> Iterator[tuple[str, Update]]:
        """What is new since the last look, each under the key of which only the latest matters."""
        text = self._sources.status_writer.latest
        if text is not None and text is not self._text:
            self._text = text
            yield AI, self._of_text(text)
        if now - self._looked >= _JOBS_EVERY:
            self._looked = now
            yield from self._moved_jobs()

    def _firing(self) -> Iterator[Callable[[], Update]]:
        firing = self._sources.monitor.alerts.firing
        yield from (partial(alert_update, alert) for alert in firing[:MOST_ALERTS])
        if len(firing) > MOST_ALERTS:
            yield lambda: RESYNC

    def _of_text(self, text: AiStatus) -> Update:
        about = {
            "timestamp": iso_read(text.at),
            "status": text.level,
            "text": text.text,
            "source": text.source,
            "model": text.model,
            "age_s": max(0, round(self._sources.fleet.clock.wall() - text.at)),
            "refs": text.refs,
        }
        return Update(AI, encoded(about))

    # ---- jobs

    def _moved_jobs(self) -> Iterator[tuple[str, Update]]:
        """Jobs that have moved. One that began and ended between two looks is told too, once."""
        jobs = self._sources.jobs.all()
        last = self._last_number
        for job in jobs:
            key = f"{JOB}:{job.id}"
            known = self._jobs.get(key)
            if known is None and (job.state.ended if last is None else job.state.ended and job.number <= last):
                continue
            looks = (job.state, job.detail, job.progress.completed)
            if known is not None and known[0] == looks:
                continue
            update = Update(JOB, encoded(self._of_job(job)))
            if job.state.ended:
                self._jobs.pop(key, None)
            else:
                self._jobs[key] = looks, update
            yield key, update
        self._last_number = max((job.number for job in jobs), default=last or 0)

    def _of_job(self, job: Job) -> dict[str, Any]:
        progress, epoch = job.progress, self._sources.fleet.clock.epoch
        return {
            "id": job.id,
            "kind": job.kind.value,
            "state": job.state.value,
            "server": job.server,
            "model": job.model,
            "by": job.by,
            "detail": job.detail,
            "error": job.error,
            "created": epoch(job.created),
            "started": None if job.started is None else epoch(job.started),
            "ended": None if job.ended is None else epoch(job.ended),
            "bytes": progress.completed,
            "bytes_total": progress.total,
            "share": None if progress.percent is None else progress.percent / 100,
            "bytes_per_second": progress.rate,
            "eta": progress.eta,
        }


def alert_update(alert: Alert) -> Update:
    """An alert as it is now."""
    return Update(ALERT, encoded(alert.payload()))


def complaints(monitor: Monitor) -> dict[str, ServerStatus]:
    """What firing alerts say about single servers; the first of each."""
    found: dict[str, ServerStatus] = {}
    for alert in monitor.alerts.firing:
        server = alert.subject.get("server")
        if server is not None and alert.severity != "info":
            found.setdefault(server, ServerStatus("warn", alert.title, round(alert.since, 3)))
    return found
