"""What the book of recoveries means: patterns, trends, summaries, advice. Formulas are said where they are applied."""

from __future__ import annotations

import enum
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from fleet.breakers.recovery_log import RecoveryAttempt, RecoveryTransition, ServerLog, Source
from fleet.breakers.values import BreakerState, Why
from fleet.common.ids import ModelName, ServerId

DAY: Final = 86_400.0
HOUR: Final = 3_600.0
LATELY: Final = 20
"""Attempts that a pattern looks at."""
ENOUGH: Final = 3
"""Fewer attempts show no pattern."""
PERSISTENT: Final = 5
"""Failures in a row that are called persistent."""
RELAPSES: Final = 3
"""Relapses that are called flapping."""
IMPACT: Final = 3
"""Openings of breakers that are called an impact, even if all is well now."""
_OPENED_ITSELF: Final = frozenset({Why.STRIKES.value, Why.ERROR_RATE.value})
TOP: Final = 10


class Pattern(enum.Enum):
    """How a server's recoveries go."""

    STABLE = "stable"
    INTERMITTENT = "intermittent"
    PERSISTENT = "persistent"
    FLAPPING = "flapping"


class Trend(enum.Enum):
    """Failures in a window compared with the window before."""

    IMPROVING = "improving"
    STABLE = "stable"
    WORSENING = "worsening"


def since(page: ServerLog, start: float) -> list[RecoveryAttempt]:
    """The kept attempts after `start`, oldest first."""
    kept = []
    for attempt in reversed(page.attempts):
        if attempt.at <= start:
            break
        kept.append(attempt)
    return kept[::-1]


def pattern_of(page: ServerLog, start: float) -> Pattern:
    """From the last 20 attempts after `start`; fewer than 3 show nothing.

    Persistent: the last 5 or more failed. Flapping: 3 relapses or more. Intermittent: some failed. Else stable.
    """
    lately = since(page, start)[-LATELY:]
    if len(lately) < ENOUGH:
        return Pattern.STABLE
    if lately[-1].in_a_row >= PERSISTENT:
        return Pattern.PERSISTENT
    if relapses(lately, page.moves) >= RELAPSES:
        return Pattern.FLAPPING
    return Pattern.STABLE if all(attempt.ok for attempt in lately) else Pattern.INTERMITTENT


def relapses(attempts: Sequence[RecoveryAttempt], moves: Iterable[RecoveryTransition]) -> int:
    """How often what had recovered failed anew, from the first of these attempts on.

    The server: it was healthy again, and then a probe had to bring it back once more. A model: its breaker had closed,
    and then failures opened it.
    """
    probes = [attempt.ok for attempt in attempts if attempt.source is Source.HEALTH_CHECK]
    count = sum(probes[:-1])
    closed: set[ModelName] = set()
    for move in moves:
        if move.at < attempts[0].at:
            continue
        count += move.why in _OPENED_ITSELF and move.pair.model in closed
        (closed.add if move.to is BreakerState.CLOSED else closed.discard)(move.pair.model)
    return count


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a window of `page.attempts` says. `before`: failures in the window before, scaled if partly forgotten."""

    pattern: Pattern
    trend: Trend
    confidence: float
    attempts: int
    failures: int
    before: float
    types: Mapping[str, int]
    advice: tuple[str, ...]


def analyse(page: ServerLog, now: float, window: float) -> Analysis:
    """The last `window` seconds of a server, against those before.

    Trend: more than 1.5 times as many failures is worsening, fewer than half as many improving. Confidence grows with
    the evidence, n / (n + 5) for n attempts in the window: 0 without any, 0.5 at five, 0.8 at twenty.
    """
    recent = since(page, now - window)
    failures = [attempt for attempt in recent if not attempt.ok]
    before = _before(page, now - window, window)
    pattern, trend = pattern_of(page, now - window), _trend(len(failures), before)
    types = Counter(attempt.type for attempt in failures)
    confidence = len(recent) / (len(recent) + 5)
    advice = tuple(_advice(pattern, trend, types)) if recent else ("Nothing was tried in this window.",)
    return Analysis(pattern, trend, confidence, len(recent), len(failures), before, dict(types), advice)


def _before(page: ServerLog, end: float, window: float) -> float:
    """Failures in the window that ends at `end`. If the ring covers it in part, as many as the whole would have had."""
    start = max(end - window, page.lost_at)
    found = sum(not attempt.ok for attempt in since(page, start) if attempt.at <= end)
    covered = end - start
    return found * window / covered if covered > 0 else float(found)


def _trend(now: float, before: float) -> Trend:
    if now > 1.5 * before:
        return Trend.WORSENING
    return Trend.IMPROVING if now < 0.5 * before else Trend.STABLE


_BY_PATTERN: Final[Mapping[Pattern, str]] = {
    Pattern.STABLE: "Nothing to do: recoveries succeed.",
    Pattern.INTERMITTENT: "Some attempts fail: look at the failure history for what they have in common.",
    Pattern.PERSISTENT: "Every recent attempt failed: put the server into maintenance or remove it.",
    Pattern.FLAPPING: "It keeps coming back and failing again: raise health.failures or the breaker's open_timeout, "
    "or drain it.",
}
_BY_TYPE: Final[Mapping[str, str]] = {
    "timeout": "Answers come too late: check the load of the machine, and the timeouts in the configuration.",
    "connection_refused": "Nothing listens there: check that Ollama runs, and the port in the server's URL.",
    "network_error": "The connection cannot be made or breaks: check name, route, TLS and firewalls.",
    "server_error": "The server answers with errors: look at its own log.",
    "rate_limited": "The server says that it is busy: lower its max_concurrency.",
}


def _advice(pattern: Pattern, trend: Trend, types: Counter[str]) -> Iterator[str]:
    yield _BY_PATTERN[pattern]
    if types and (said := _BY_TYPE.get(types.most_common(1)[0][0])):
        yield said
    if trend is Trend.WORSENING:
        yield "There are more failures than in the window before."


@dataclass(frozen=True, slots=True)
class Impact:
    """What breakers made of a server. `per_closing`: openings per closing; `mean_open`: seconds, of ended periods."""

    impacted: bool
    moves: int
    openings: int
    per_closing: float
    mean_open: float
    advice: tuple[str, ...]


def impact_of(page: ServerLog, open_now: int) -> Impact:
    """Since the page began. Impacted: some breaker is not closed now (`open_now` of them), or they opened 3 times."""
    impacted = open_now > 0 or page.opened >= IMPACT
    mean_open = page.open_seconds / page.left_open if page.left_open else 0.0
    advice = tuple(_on_impact(page, open_now, impacted))
    return Impact(impacted, page.moved, page.opened, page.opened / max(1, page.closed), mean_open, advice)


def _on_impact(page: ServerLog, open_now: int, impacted: bool) -> Iterator[str]:
    if not page.moved:
        yield "No breaker of this server has moved."
        return
    if open_now:
        yield f"{open_now} of its breakers are not closed now."
    if impacted and page.opened:
        models = len({move.pair.model for move in page.moves if move.to is BreakerState.OPEN})
        yield f"Breakers opened {page.opened} times, lately for {models} models."
    if page.open_reason is not None:
        yield f"The last one opened because: {page.open_reason}."
    if not impacted:
        yield "Breakers hardly touch this server."


@dataclass(frozen=True, slots=True)
class Summary:
    """All servers over a window. `complete`: no attempt of the window has fallen out of a ring."""

    servers: int
    failing: int
    persistent: int
    attempts: int
    failures: int
    top: tuple[tuple[ServerId, int], ...]
    types: Mapping[str, int]
    complete: bool


def summarise(pages: Mapping[ServerId, ServerLog], now: float, window: float) -> Summary:
    """The servers given, over the last `window` seconds. Persistent: as `pattern_of` says."""
    start = now - window
    attempts = {server: since(page, start) for server, page in pages.items()}
    failed = {server: sum(not each.ok for each in tried) for server, tried in attempts.items()}
    types = Counter(each.type for tried in attempts.values() for each in tried if not each.ok)
    return Summary(
        servers=len(pages),
        failing=sum(map(bool, failed.values())),
        persistent=sum(pattern_of(page, start) is Pattern.PERSISTENT for page in pages.values()),
        attempts=sum(map(len, attempts.values())),
        failures=sum(failed.values()),
        top=tuple((server, n) for server, n in Counter(failed).most_common(TOP) if n),
        types=dict(types.most_common()),
        complete=all(page.lost_at <= start for page in pages.values()),
    )


def tests_of(page: ServerLog, model: ModelName | None) -> list[RecoveryAttempt]:
    """The kept recovery tests of a model, or of all of the server's models; newest first."""
    tests = (each for each in reversed(page.attempts) if each.source is Source.RECOVERY_TEST)
    return [each for each in tests if model in (None, each.model)]


def failures_since(pages: Iterable[ServerLog], start: float) -> int:
    """Kept failures of some servers together after `start`."""
    return sum(not attempt.ok for page in pages for attempt in since(page, start))


def latest(pages: Iterable[ServerLog], most: int) -> list[RecoveryAttempt]:
    """The newest failures of some servers together, newest first."""
    merged = heapq.merge(*(page.failures for page in pages), key=lambda attempt: -attempt.at)
    return list(islice(merged, most))
