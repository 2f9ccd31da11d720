"""What is wrong with the fleet at this moment, if anything: how bad it is, in what words, since when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from actors.config.settings import Settings
from actors.state.request_log import LATELY
from actors.system import System
from fleet.common.times import ClockReading
from fleet.observability.health_summary.summary import Level
from fleet.scheduling.server_state import Admin, Health, ServerState

if TYPE_CHECKING:
    from actors.storage.history.recorder import HistoryStatus

MOST: Final = 50
"""Servers that are named one by one."""
DRAINING, DOWN = "draining", "no_server"
_RELOAD: Final = "the configuration file cannot be used, and the last good one is in effect"
_MEND: Final = "mend it with POST /api/orchestrator/servers/add under the same id, or forget it with"
_RENAME: Final = "add it under another id, and forget this one with"
_LONGEST: Final = 600
"""Characters of one text."""
_SAID: Final = 86_400.0
"""Seconds for which a history that was set aside is worth a word."""
_TOLD: Final = frozenset(
    (
        "no_server",
        "server_down",
        "queue_paused",
        "queue_full",
        "store_degraded",
        "server_set_aside",
        "records_dropped",
        "config_reload_failed",
    )
)
"""Codes of the verdict that are found here by themselves, without its delay."""


HealthWord = Literal["healthy", "degraded", "unhealthy", "draining"]


@dataclass(frozen=True, slots=True)
class Symptom:
    """One thing that is wrong. `since` is seconds since 1970; None: nobody knows."""

    code: str
    text: str
    since: float | None = None


def symptoms(system: System, settings: Settings, *, named: bool) -> list[Symptom]:
    """All of them, the worst first. Without `named` no server, no file and no backend's words are in the texts."""
    at = system.clock.reading()
    found = [
        *_closed(system, at),
        *_servers(system, named, at),
        *_unwelcome(system, named),
        *_queue(system),
        *_memory(system, named, at),
    ]
    found += _aside(system, named)
    if (trouble := settings.trouble) is not None:
        text = f"{_RELOAD}: {trouble.text}" if named else _RELOAD
        found.append(Symptom("config_reload_failed", text[:_LONGEST], trouble.since))
    return [*found, *_verdict(system, named)]


def word_of(found: Sequence[Symptom]) -> HealthWord:
    """`healthy`; `degraded`: something is wrong, requests are served; `unhealthy`: none can be; `draining`."""
    codes = {symptom.code for symptom in found}
    if DRAINING in codes:
        return "draining"
    if DOWN in codes:
        return "unhealthy"
    return "degraded" if codes else "healthy"


def _closed(system: System, at: ClockReading) -> Iterator[Symptom]:
    if system.draining:
        yield Symptom(DRAINING, "the fleet is shutting down and takes no new requests", _said(system, "draining"))
    states = [cell.state for cell in system.servers.values()]
    if not states:
        yield Symptom(DOWN, "the fleet has no servers")
    elif not any(state.usable for state in states):
        since = _said(system, "no_server") or at.epoch(max(map(_began, states)))
        yield Symptom(DOWN, f"none of the {len(states)} servers can be used", since)


def _said(system: System, code: str) -> float | None:
    """Since when the verdict has been about this, in epoch seconds; None: it is about something else."""
    verdict = system.monitor.verdict
    return verdict.since if verdict.code == code else None


def _began(state: ServerState) -> float:
    """Since when it is as it is: out of service, its health was nobody's trouble."""
    return max(state.since, state.admin_since)


def _servers(system: System, named: bool, at: ClockReading) -> Iterator[Symptom]:
    """Servers that should work and do not. Those that the operator took out of service are no trouble."""
    states = [cell.state for cell in system.servers.values()]
    ill = [state for state in states if state.health is not Health.HEALTHY and state.admin is Admin.ACTIVE]
    for state in ill[: MOST if named else 0]:
        why = state.why.removeprefix(f"{state.id}: ")
        yield Symptom(_code(state), f"server '{state.id}' is not healthy: {why}", at.epoch(_began(state)))
    left = len(ill) - MOST if named else len(ill)
    if left > 0:
        what = f"{left} more" if named else f"{left} of the {len(states)}"
        yield Symptom("server_unhealthy", f"{what} servers are not healthy", at.epoch(min(map(_began, ill))))


def _unwelcome(system: System, named: bool) -> Iterator[Symptom]:
    """Servers that answer probes and refuse the fleet's requests."""
    states = [cell.state for cell in system.servers.values()]
    shut = [state for state in states if state.unwelcome and state.usable]
    for state in shut[: MOST if named else 0]:
        yield Symptom("server_refuses", f"server '{state.id}' {state.unwelcome}")
    left = len(shut) - MOST if named else len(shut)
    if left > 0:
        yield Symptom(
            "server_refuses", f"{left} {'more' if named else f'of the {len(states)}'} servers refuse requests"
        )


def _code(state: ServerState) -> str:
    return "server_unhealthy" if state.health is Health.UNHEALTHY else "server_not_probed"


def _queue(system: System) -> Iterator[Symptom]:
    queue = system.queries.queue_view(0)
    if queue.paused:
        yield Symptom("queue_paused", "the queue is paused: everybody waits", queue.since)
    if queue.max_size and queue.waiting >= queue.max_size:
        text = f"{queue.waiting} requests wait, and no more may: new ones are refused"
        yield Symptom("queue_full", text, _said(system, "queue_full"))


def _verdict(system: System, named: bool) -> Iterator[Symptom]:
    """What only the monitor sees: errors, models without a route, saturation and whatever else fires."""
    verdict = system.monitor.verdict
    if verdict.level in (Level.WARN, Level.CRIT) and verdict.code not in _TOLD:
        yield Symptom(verdict.code, verdict.headline if named else verdict.plain, verdict.since)


def _memory(system: System, named: bool, at: ClockReading) -> Iterator[Symptom]:
    store, recorder = system.journal.view(), system.statistics.request_log
    if store.state == "degraded":
        text = f"what changes is not kept on disk: {store.why}" if named else "what changes is not kept on disk"
        yield Symptom("store_degraded", text, store.since)
    if recorder.dropped_at is not None and at.now - recorder.dropped_at < LATELY:
        text = f"{recorder.dropped} requests were left out of the statistics"
        yield Symptom("records_dropped", text, at.epoch(recorder.dropped_since or recorder.dropped_at))
    if system.history is not None:
        yield from _history(system.history.recorder.standing, at.wall, named)


def _history(standing: HistoryStatus, now: float, named: bool) -> Iterator[Symptom]:
    if standing.state == "degraded":
        text = f"finished requests cannot be kept: {standing.why}" if named else "finished requests cannot be kept"
        yield Symptom("history_degraded", text[:_LONGEST], standing.since)
    if standing.moved_at is not None and now - standing.moved_at < _SAID:
        text = f"the history was damaged and a new one begun{f': see {standing.moved_aside}' if named else ''}"
        yield Symptom("history_set_aside", text[:_LONGEST], standing.moved_at)


def _aside(system: System, named: bool) -> Iterator[Symptom]:
    """Servers that the store holds and nobody can use."""
    journal = system.journal
    for _, server in islice(journal.aside, MOST if named else 0):
        why, path = journal.aside["server", server], f"/api/orchestrator/servers/{quote(server[:64], safe='')}"
        mend = _RENAME if why.startswith("id: ") else _MEND
        text = f"server '{server[:64]}' of the store is set aside and not used: {why[:200]}; {mend} DELETE {path}"
        yield Symptom("server_set_aside", text[:_LONGEST], journal.standing.since)
    left = len(journal.aside) - (MOST if named else 0)
    if left > 0:
        what = f"{left} {'more ' if named else ''}server{'s' if left > 1 else ''} of the store cannot be used"
        yield Symptom("server_set_aside", f"{what} and set aside", journal.standing.since)
