"""What the dispatcher reads of a breaker. A pair without a gate is open: absence means all is well."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class GateState(enum.Enum):
    """Whether traffic may pass. The admin API speaks of the breaker instead: closed, half-open, open."""

    OPEN = "open"
    LIMITED = "limited"
    SHUT = "shut"


_OPEN: Final = GateState.OPEN  # a module's name is found faster than an enum's member
_LIMITED: Final = GateState.LIMITED


@dataclass(slots=True)
class Gate:
    """The verdict of one breaker, as a small object that is read without asking anybody.

    Writer of the verdict: the breaker. The dispatcher only takes permits, in the same step as the slot. `generation`
    grows with every change of state; a lease carries the number it was admitted under (0 if there was no gate), so
    that the breaker can tell a result of today from one of an earlier life. `retry_at` is on the writer's clock.
    """

    state: GateState = GateState.OPEN
    permits: int = 0
    limit: int = 0
    retry_at: float = 0.0
    generation: int = 0
    refused: int = 0
    in_vain: bool = False
    """Whether it was tried for want of others, and failed: what is shut again has been no hope for those who wait."""

    @property
    def admits(self) -> bool:
        """Whether `take` would succeed now."""
        return self.state is _OPEN or (self.state is _LIMITED and self.permits > 0)

    @property
    def trials_out(self) -> int:
        """How many permits are out with attempts that have not ended."""
        return self.limit - self.permits

    def take(self) -> bool:
        """Pass one attempt, which uses up a permit while the gate is limited. False: not now (counted as refused)."""
        if not self.admits:
            self.refused += 1
            return False
        if self.state is _LIMITED:
            self.permits -= 1
        return True

    def give_back(self) -> bool:
        """Return a permit whose trial proved nothing or ended well; True if there was one out.

        The breaker does this for every attempt that is recorded with it. Only these call it directly: who took a permit
        and then made no attempt, so that nothing will ever be recorded; and whose attempt ended before it is known what
        it proves, so that what is recorded then brings no permit.
        """
        if self.state is not GateState.LIMITED or self.permits >= self.limit:
            return False
        self.permits += 1
        return True

    def widen(self, limit: int) -> bool:
        """Let as many trials be out at one time; True if there are more permits now. Never fewer."""
        more = limit - self.limit
        if self.state is not GateState.LIMITED or more <= 0:
            return False
        self.limit = limit
        self.permits += more
        return True

    def show(self, state: GateState, *, limit: int = 0, retry_at: float = 0.0) -> None:
        """Publish a verdict. A change of state starts a new generation with all permits in; no change keeps them."""
        self.retry_at = retry_at
        if state is self.state:
            return
        self.limit = limit if state is GateState.LIMITED else 0
        self.permits = self.limit
        self.generation += 1
        self.state = state
