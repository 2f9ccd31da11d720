"""What people have stood in line for, in seconds: what a load has to be worth before it is bought (ski rental).

One account for each model with one set of runner options: it grows by as many seconds a second as people wait, fades by
half in two minutes, and is empty again once a load was bought. So loads cost at most about what waiting has cost, two
models that want the same place do not chase each other out at every request, and nobody who waits is without hope: one
who waits alone has saved up 173 s in the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import exp, log
from typing import Final

from fleet.common.ids import ModelName
from fleet.common.lru_table import LruTable
from fleet.scheduling.wait_queue import TicketKind

_PACE: Final = log(2.0) / 120.0
_ACCOUNTS: Final = 4096


@dataclass(slots=True)
class _Account:
    saved: float = 0.0
    at: float = 0.0
    waiting: int = 0

    def settle(self, now: float) -> None:
        if now > self.at:
            kept = exp(-_PACE * (now - self.at))
            self.saved = self.saved * kept + self.waiting * (1.0 - kept) / _PACE
        self.at = now


class Rents:
    """Bounded: 4,096 accounts, those used last; one that was lost counts those who wait as nobody until they left."""

    def __init__(self) -> None:
        self._accounts: LruTable[TicketKind, _Account] = LruTable(_ACCOUNTS)
        self._waiting: Counter[ModelName] = Counter()

    def begin(self) -> None:
        """Nobody waits, as far as is known; what was saved up stays."""
        self._waiting.clear()
        for account in self._accounts.values():
            account.waiting = 0

    def came(self, line: TicketKind, now: float) -> None:
        """One more waits."""
        account = self._accounts.use(line, _Account)
        account.settle(now)
        account.waiting += 1
        self._waiting[line.model] += 1

    def went(self, line: TicketKind, now: float) -> None:
        """One waits no more."""
        self._waiting[line.model] -= 1
        if not self._waiting[line.model]:
            del self._waiting[line.model]
        account = self._accounts.get(line)
        if account is not None:
            account.settle(now)
            account.waiting = max(0, account.waiting - 1)

    def waiting(self, asked: ModelName | TicketKind) -> int:
        """How many wait for a model, or for one of its runners."""
        if isinstance(asked, TicketKind):
            account = self._accounts.get(asked)
            return 0 if account is None else account.waiting
        return self._waiting[asked]

    def saved(self, line: TicketKind, now: float) -> tuple[float, int]:
        """Seconds, and how many wait: by so much it grows in a second, at the most."""
        account = self._accounts.get(line)
        if account is None:
            return 0.0, 0
        account.settle(now)
        return account.saved, account.waiting

    def spent(self, line: TicketKind) -> None:
        """A load was bought."""
        account = self._accounts.get(line)
        if account is not None:
            account.saved = 0.0
