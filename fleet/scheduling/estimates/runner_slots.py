"""How many requests a runner serves at once: nothing tells, but slots are integers and can be observed from outside.

* Proof of at least j: j requests had their first chunk (or, by their statistics, had begun) and had not ended.
* Vote for fewer than j: a request was sent, j - 1 others held slots, and it began only when one of them ended: it had
  to wait (`total - load - prompt_eval - eval` over 0.25 s, or, where nothing is told, no first chunk by the 95th
  percentile of its prefill), **and** its beginning coincides with an end within 0.3 s. The coincidence tells a missing
  slot from a long prefill that stalls everybody. Two votes: there are j - 1. A proof of j takes votes back.
* K is what two votes said, else what is proven, and one more: a single probe, for a ticket that can wait. One that
  failed is repeated after 60 s x 2^k; one that succeeds goes on, so that no mistake stays for ever.
* Foreign work: a wait that no load and no end of ours explains. Its mean is taken off K, weights halving in 5 minutes.

Units: seconds on the caller's clock. A pure state machine, one per runner; every method is O(requests seen lately).

What it is wrong about: an answer that is generated but not yet read still counts as running, so slow readers prove too
much (two votes take that back); work of others that ends with ours looks like a missing slot (until the next probe).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean

UNSEEN: Final = 2
"""Requests for a runner that has not been seen at work: one, and one to see whether it serves two."""
WAITED: Final = 0.25
COINCIDES: Final = 0.3
PROBE_AGAIN: Final = 60.0
_MOST_DOUBLINGS: Final = 6
_VOTES: Final = 2
_VOTE_LIFE: Final = 600.0
_FOREIGN_HALF_LIFE: Final = 300.0
_LATELY: Final = 64
_MOST_OPEN: Final = 1024
_MOST_SLOTS: Final = 512


@dataclass(slots=True)
class _Request:
    """An open request. `first`: when its first chunk came; `due`: when it should have."""

    sent: float
    prefill: float
    due: float
    loads: bool
    first: float = math.inf


@dataclass(frozen=True, slots=True)
class ServiceTold:
    """What the statistics of an answer say, in seconds: `hidden` is what is left of the total without the others."""

    hidden: float
    prefill: float
    decode: float


class RunnerSlots:
    """`alone`: begin with one slot (embeddings, families that Ollama forces to one) and probe later, else with two."""

    def __init__(self, *, alone: bool = False) -> None:
        self._alone = alone
        self._open: dict[int, _Request] = {}
        self._served: deque[tuple[float, float]] = deque(maxlen=_LATELY)
        self._foreign = DecayingMean(_FOREIGN_HALF_LIFE)
        self.reset()

    def reset(self) -> None:
        """The runner was loaded anew, the server restarted or has another version: all is open again."""
        self.proven = 1
        self.known: int | None = None
        self._votes: dict[int, deque[float]] = {}
        self._probe: int | None = None
        """The request that was sent beyond what is known, until it shows whether there was a slot for it."""
        self._failed_probes = 0
        self._probe_at = math.inf if self._alone else -math.inf
        self._served.clear()

    @property
    def learned(self) -> int:
        """How many it serves at once, as far as that was seen."""
        return self._base

    @property
    def open(self) -> int:
        """Requests that were sent and have not ended."""
        return len(self._open)

    def limit(self, now: float, cap: float = math.inf) -> int:
        """How many to have open: a probe above what is known included, if one is due; foreign work taken off."""
        slots = (self.proven if self.known is None else self.known) + (now >= self._probe_at and self._probe is None)
        if self._foreign.weight:
            slots -= round(self.foreign(now))
        return int(max(1, min(slots, cap)))

    def probes(self, now: float) -> bool:
        """Whether the last place of `limit` is a probe, for a ticket that can bear to wait there."""
        return now >= self._probe_at and self._probe is None

    def foreign(self, now: float) -> float:
        """The mean number of slots that somebody beside us uses."""
        return self._foreign.towards(0.0, now)

    def sent(self, lease: int, now: float, prefill: float, patience: float, *, loads: bool = False) -> None:
        """A request left for the runner. `prefill`: its expected seconds, `patience`: their 95th percentile.

        `loads`: the runner has to be loaded for it, which explains any wait.
        """
        if self._alone and self._probe_at == math.inf:
            self._probe_at = now + PROBE_AGAIN
        if self._probe is None and len(self._open) >= self._base:
            self._probe = lease
        self._open[lease] = _Request(now, prefill, now + patience, loads)
        if len(self._open) > _MOST_OPEN:
            self.ended(next(iter(self._open)), now, well=False)

    def spoke(self, lease: int, now: float) -> None:
        """Its first chunk came."""
        request = self._open.get(lease)
        if request is not None and request.first == math.inf:
            request.first = now
            if lease == self._probe and now <= request.due:
                self._probe = None
            self._prove(sum(each.first <= now for each in self._open.values()))

    def ended(self, lease: int, now: float, told: ServiceTold | None = None, *, well: bool = True) -> None:
        """It is over; what went wrong (`well` is False) only frees its place."""
        request = self._open.pop(lease, None)
        if lease == self._probe:
            self._probe = None
        if request is None or not well or (told is None and request.first == math.inf):
            return
        began = request.first - request.prefill if told is None else now - told.decode - told.prefill
        began = min(max(began, request.sent), now)
        waited = request.first > request.due if told is None else told.hidden > WAITED
        if not request.loads:
            self._judge(request, began, waited, told is not None, now)
        self._served.append((began, now))
        if request.first == math.inf:  # else its first chunk has proven all there was
            self._prove(self._most_at_once(began, now))

    def refused(self, now: float) -> None:
        """The server said that it is busy: no more than those that run, for a while."""
        self.known = max(1, sum(each.first < math.inf for each in self._open.values()))
        self.proven = min(self.proven, self.known)
        self._probe_failed(now)

    @property
    def _base(self) -> int:
        return self.proven if self.known is None else self.known

    def _judge(self, request: _Request, began: float, waited: bool, sure: bool, now: float) -> None:
        """What one request says about the slots that were there for it."""
        if not waited and not self._foreign.weight:
            return
        tolerance = COINCIDES + request.prefill / 4
        beside = self._running(began - tolerance / 2, tolerance / 2)
        base = self._base
        freed = any(end > request.sent and abs(end - began) <= tolerance for _, end in self._served)
        if waited and freed and beside:
            self._vote(beside + 1, now)
        elif waited and not freed and (sure or not beside):
            self._foreign.add(max(0, base - beside), now)
        elif not waited:
            self._foreign.add(min(self.foreign(now), max(0, base - beside - 1)), now)

    def _running(self, at: float, tolerance: float) -> int:
        """How many of the others held a slot shortly before one of them ended."""
        ended = sum(start <= at and end >= at - tolerance for start, end in self._served)
        return ended + sum(each.first <= at for each in self._open.values())

    def _most_at_once(self, began: float, now: float) -> int:
        """How many of those that are over ran at one moment of this one."""
        others = [(start, end) for start, end in self._served if end > began]
        return max((sum(s <= start < end for s, end in others) for start, _ in others if start >= began), default=1)

    def _prove(self, slots: int) -> None:
        if slots <= self.proven and not self._votes:
            return
        slots = min(slots, _MOST_SLOTS)
        for vote in [vote for vote in self._votes if vote <= slots]:
            del self._votes[vote]
        self.proven = max(self.proven, slots)
        if self.known is not None and slots > self.known:
            self.known, self._failed_probes, self._probe_at = None, 0, -math.inf

    def _vote(self, fewer_than: int, now: float) -> None:
        """There are fewer slots than so many."""
        if self.known is not None and fewer_than > self.known:
            if now >= self._probe_at:  # else it was sent before the probe had failed
                self._probe_failed(now)
            return
        votes = self._votes.setdefault(min(fewer_than, _MOST_SLOTS), deque(maxlen=_VOTES))
        votes.append(now)
        if len(votes) == _VOTES and now - votes[0] <= _VOTE_LIFE:
            self.known = fewer_than - 1
            self.proven = min(self.proven, self.known)
            self._votes.clear()
            self._probe_failed(now)

    def _probe_failed(self, now: float) -> None:
        self._probe_at = now + PROBE_AGAIN * 2.0 ** min(self._failed_probes, _MOST_DOUBLINGS)
        self._failed_probes += 1
