"""What of breakers, bans and the queue outlives the process: how it becomes documents, and how they are read back."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from actors.breakers.registry import BreakerRegistry
from actors.kit.clock import Clock
from actors.state.messages import ServerChanged
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import Servers
from actors.storage.journal import Document, Journal
from fleet.breakers.persistence import checked, shifted
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.bans import BanKind

log = logging.getLogger("fleet.store")

BREAKER: Final = "breaker"
BAN: Final = "ban"
QUEUE: Final = "queue"
PAUSED: Final = "paused"


def key_of(*parts: str) -> str:
    """One text of several, whatever is in them: model names may hold any character."""
    return json.dumps(parts, separators=(",", ":"))


def parts_of(key: str, number: int) -> list[str]:
    """What `key_of` was given. Raises ValueError."""
    parts = json.loads(key)
    if not isinstance(parts, list) or len(parts) != number or not all(isinstance(part, str) for part in parts):
        raise ValueError("not a key of ours")
    return parts


def touch_breaker(journal: Journal, pair: Pair) -> None:
    """A breaker has changed."""
    journal.touch(BREAKER, key_of(*pair))


def touch_pause(journal: Journal) -> None:
    """The queue was paused, or goes on."""
    journal.touch(QUEUE, PAUSED)


def touch_ban(journal: Journal, pair: Pair, kind: BanKind) -> None:
    """A ban has come, gone, or been replaced."""
    journal.touch(BAN, key_of(*pair, kind.value))


class PersistedState:
    """The journal's source for breakers, bans and the queue's pause. Made before anything of that can change."""

    def __init__(
        self, clock: Clock, scheduler: SchedulerState, servers: Servers, breakers: BreakerRegistry, journal: Journal
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._servers = servers
        self._breakers = breakers
        self._journal = journal
        journal.keep(BREAKER, self._breaker)
        journal.keep(BAN, self._ban)
        journal.keep(QUEUE, self._queue)

    def restore(self) -> None:
        """Go on where the last process ended. Called once, when the servers are known; forgets what is out of date."""
        journal = self._journal
        journal.recall(BREAKER, self._resume_breaker)
        journal.recall(QUEUE, self._resume_queue)
        for server in dict.fromkeys(journal.recall(BAN, self._resume_ban)):
            if server is not None:
                self._scheduler.mailbox.cast(ServerChanged(server))

    # ---- to documents

    def _breaker(self, key: str) -> Document | None:
        server, model = parts_of(key, 2)
        memory = self._breakers.memory_of(Pair(ServerId(server), ModelName(model)))
        return None if memory is None else shifted(memory, self._clock.epoch(0.0))

    def _ban(self, key: str) -> Document | None:
        server, model, kind = parts_of(key, 3)
        pair = Pair(ServerId(server), ModelName(model))
        ban = self._scheduler.bans.get(pair, BanKind(kind), self._clock.now())
        if ban is None:
            return None
        expires_at = None if ban.expires_at == math.inf else self._clock.epoch(ban.expires_at)
        banned_at = self._clock.epoch(ban.banned_at)
        return {"reason": ban.reason, "by": ban.by, "banned_at": banned_at, "expires_at": expires_at}

    def _queue(self, key: str) -> Document | None:
        memory = self._scheduler.memory
        if key != PAUSED or not memory.paused or memory.paused_since is None:
            return None
        return {"by": memory.paused_by, "since": self._clock.epoch(memory.paused_since)}

    # ---- and back

    def _resume_breaker(self, key: str, document: Document) -> None:
        server, model = parts_of(key, 2)
        pair = Pair(ServerId(server), ModelName(model))
        memory = checked(document)
        known = pair.server in self._servers
        if not known or not self._breakers.resume(pair, memory, self._shift(memory["since"])):
            self._journal.touch(BREAKER, key)

    def _resume_ban(self, key: str, document: Document) -> ServerId | None:
        """The server, if it is banned from something."""
        server, model, kind = parts_of(key, 3)
        pair, now = Pair(ServerId(server), ModelName(model)), self._clock.now()
        banned_at, expires_at = _number(document, "banned_at"), document["expires_at"]
        shift = self._shift(banned_at)
        until = math.inf if expires_at is None else _number(document, "expires_at") + shift
        add = partial(self._scheduler.bans.add, pair, _text(document, "reason"), banned_at + shift)
        known = pair.server in self._servers
        if known and until > now and add(kind=BanKind(kind), until=until, by=_text(document, "by")):
            return pair.server
        self._journal.touch(BAN, key)
        return None

    def _resume_queue(self, key: str, document: Document) -> None:
        if key != PAUSED:
            raise ValueError("not a key of ours")
        since, by = _number(document, "since"), _text(document, "by")
        memory = self._scheduler.memory
        memory.paused, memory.paused_since, memory.paused_by = True, since + self._shift(since), by
        log.warning("the queue is paused, as it was before the restart", extra={"by": by})

    def _shift(self, epoch: float) -> float:
        """Seconds from the time of day to our clock; nothing that was kept lies ahead, even if the day was set back."""
        return min(self._clock.moment(epoch), self._clock.now()) - epoch


def _number(document: Mapping[str, Any], name: str) -> float:
    value = document[name]
    if not isinstance(value, int | float):
        raise ValueError(f"{name} is no number")
    return float(value)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value
