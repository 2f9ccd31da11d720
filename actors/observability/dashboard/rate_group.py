"""Those who watch at the same pace: one sequence of updates, each made and serialised once for all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from actors.observability.dashboard.subscriber import Update, encoded
from fleet.observability.dashboard.delta import delta
from fleet.observability.dashboard.snapshot import FleetSnapshot, snapshot

if TYPE_CHECKING:
    from actors.observability.dashboard.subscriber import Subscriber

EVENT: Final = "metrics_update"
STRIDES: Final = (1, 2, 5, 10, 20, 50)
"""Ticks between two updates of a lane."""
WHOLE_EVERY: Final = 60.0
"""Seconds after which everybody gets the whole state once more."""


def stride_of(hz: float, interval: float, slow: bool) -> int:
    """The ticks between two updates for a viewer that wants `hz` at most; a slow one gets half of that."""
    wanted = max(1.0, 1 / (hz * interval)) * (2 if slow else 1)
    return next((stride for stride in STRIDES if stride >= wanted - 1e-9), STRIDES[-1])


class RateGroup:
    """One pace. `epoch` names the process: with another one, sequence numbers begin anew."""

    def __init__(self, stride: int, epoch: str) -> None:
        self.stride = stride
        self.viewers: dict[Subscriber, None] = {}
        self.state: FleetSnapshot | None = None
        self.wanted = True
        """Whether somebody should not wait for its next turn."""
        self._at = -math.inf
        self._epoch = epoch
        self._seq = 0
        self._whole: Update | None = None
        self._whole_at = -math.inf

    def advance(self, state: FleetSnapshot, now: float) -> int:
        """The state has become another: tell all viewers. Returns how many updates slow ones will miss."""
        old, self.state, self._at, self.wanted = self.state, state, now, False
        self._seq += 1
        self._whole = None
        again = now - self._whole_at >= WHOLE_EVERY
        if again:
            self._whole_at = now
        step = None
        missed = 0
        for viewer in self.viewers:
            if viewer.stale or old is None:
                missed += self.catch_up(viewer)
            elif again and viewer.idle:
                self.catch_up(viewer)
            else:
                step = step or self._message("delta", delta(old, state))
                missed += viewer.offer(step)
        return missed

    def is_fresh(self, now: float, interval: float) -> bool:
        """Whether its last state is as new as anybody may expect."""
        return self.state is not None and now - self._at <= interval

    def snapshot(self) -> Update | None:
        """The whole of the last state, serialised at most once; None before there is one."""
        if self._whole is None and self.state is not None:
            self._whole = self._message("snapshot", snapshot(self.state))
        return self._whole

    def catch_up(self, viewer: Subscriber) -> int:
        """Show a viewer the last state, whatever it has missed.

        A slow one that is still being written to gets nothing (counted: 1), so that it holds nothing; it is looked at
        again next time.
        """
        whole = None if viewer.slow and not viewer.idle else self.snapshot()
        if whole is None:
            viewer.outdate()
            return 1
        viewer.show(whole)
        return 0

    def _message(self, kind: str, body: dict[str, object]) -> Update:
        head = {"v": 1, "kind": kind, "epoch": self._epoch, "seq": self._seq}
        return Update(EVENT, encoded({**head, **body}))
