"""The verdict line: what is wrong, with whom, since when. The first rule that matches is what is said.

Anti-flap: a verdict must be found `WORSEN` times in a row before a worse one replaces the present, `IMPROVE` times for
a better one. What is said of the same thing (how many wait, who else is down) is always of the last look.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, NamedTuple

from fleet.common import wording as say
from fleet.observability.alerting.facts import Facts
from fleet.observability.alerting.onsets import Begins
from fleet.observability.health_summary.sentences import DRAINING, SENTENCES, STARTING, UNPROBED, SummaryInput
from fleet.observability.health_summary.summary import HealthSummary, Level

__all__ = ["IMPROVE", "STARTING", "WORSEN", "Judge", "Judgement", "SummaryInput", "judge"]

WORSEN: Final = 2
IMPROVE: Final = 3
LONGEST: Final = 240
"""Characters of a headline."""
_FLEETING: Final = (DRAINING, "no_servers", STARTING, UNPROBED)
"""Codes of what was ordered or has just begun: what follows them is taken at once."""
_EXACT: Final = frozenset(
    (
        "server_down",
        "breaker_open",
        "queue_paused",
        "config_reload_failed",
        "store_degraded",
        "server_set_aside",
        "records_dropped",
        "alert",
        UNPROBED,
        "planned",
    )
)
"""Codes whose facts say when that began which is named now."""
_SINGLE: Final = ("model_unservable", "server_slow")
"""Codes about single models or servers: each of them has a beginning of its own."""
_ORDER: Final = (Level.CRIT, Level.WARN, Level.UNKNOWN, Level.PLANNED, Level.OK)


class Judgement(NamedTuple):
    """What one look found. `rank`: the smaller, the worse; `since` on the caller's clock, None: when it was found.

    `since` counts only when it was found first, unless the code is one of `_EXACT`: there it is that of the very
    servers and breakers that are named now.
    """

    rank: int
    level: Level
    code: str
    headline: str
    plain: str
    since: float | None = None
    subjects: tuple[str, ...] = ()


def judge(seen: SummaryInput) -> Judgement:
    """What this look alone says."""
    return next(_all(seen))


def _all(seen: SummaryInput) -> Iterator[Judgement]:
    """Everything that holds, what is said of it first; the last sentence always has something to say."""
    for place, sentence in enumerate(SENTENCES):
        for level, code, headline, plain, since, subjects in sentence(seen):
            rank = _ORDER.index(level) * len(SENTENCES) + place
            yield Judgement(rank, level, code, headline, plain, since, subjects)


class Judge:
    """Keeps the verdict steady. The first one is taken at once, and so is what follows the start.

    What is hidden behind something worse is watched too: when its turn comes, it has lasted for as long as it has.
    """

    def __init__(self) -> None:
        self._present: Judgement | None = None
        self._begins = Begins()
        self._worse = 0
        self._better = 0
        self._since: float | None = None
        self._epoch = 0.0

    def judge(self, seen: SummaryInput) -> HealthSummary:
        """The verdict after another look."""
        found = self._watched(list(_all(seen)), seen.facts.now)
        present = self._present
        if present is None or _at_once(found.code, present.code) or self._due(found.rank, present.rank):
            self._take(found)
        assert self._present is not None
        return self._verdict(self._present, seen.facts)

    def _due(self, found: int, present: int) -> bool:
        """Whether it has been found worse, or better, often enough in a row."""
        self._worse = self._worse + 1 if found < present else 0
        self._better = self._better + 1 if found >= present else 0
        return self._worse >= WORSEN or self._better >= IMPROVE

    def _watched(self, every: Sequence[Judgement], now: float) -> Judgement:
        """The first, with its true beginning; those of all are kept."""
        lasting = [
            each for each in every if each.code not in _EXACT and (each is every[0] or each.level is not Level.OK)
        ]
        began: dict[Hashable, float]
        began = {(each.code, ""): now if each.since is None else min(each.since, now) for each in lasting}
        began |= {(each.code, who): now for each in lasting if each.code in _SINGLE for who in each.subjects}
        self._begins.look(began)
        first = every[0]
        if first.code in _EXACT:
            return first
        keys = [(first.code, who) for who in first.subjects if first.code in _SINGLE] or [(first.code, "")]
        return first._replace(since=min(each for key in keys if (each := self._begins.of(key)) is not None))

    def _take(self, found: Judgement) -> None:
        self._present, self._worse, self._better = found, 0, 0

    def _verdict(self, judged: Judgement, facts: Facts) -> HealthSummary:
        since = facts.now if judged.since is None else judged.since
        if since != self._since:  # else its time of day would tremble with every look
            self._since, self._epoch = since, facts.epoch(min(since, facts.now))
        headline, plain = say.line(judged.headline, LONGEST), say.line(judged.plain, LONGEST)
        return HealthSummary(judged.level, judged.code, headline, plain, self._epoch, judged.subjects)


def _at_once(found: str, present: str) -> bool:
    """Whether a code follows another without delay: nothing there that could flap."""
    return found in (DRAINING, present) or present in _FLEETING
