"""How sums over a window are shown: the reference's fields, milliseconds, whole numbers where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from fleet.common.times import milliseconds
from web.admin.kit.schemas import EPOCH_MS, MS, SHARE, Maybe, Said
from web.http.units import epoch_ms

if TYPE_CHECKING:
    from actors.system import System
    from fleet.common.ids import Pair
    from fleet.observability.statistics.aggregates import Sums
    from fleet.observability.statistics.totals import Streamed

SPANS: Final = {"1m": 60.0, "5m": 300.0, "15m": 900.0, "1h": 3_600.0, "24h": 86_400.0}
"""The windows that the reference shows; seconds."""

WINDOW: Final = {
    "startTime": Said(EPOCH_MS, "where the window begins: the edge of a bucket, or the start of this process"),
    "endTime": EPOCH_MS,
    "count": int,
    "latencySum": MS,
    "latencySquaredSum": Said(int, "square milliseconds"),
    "minLatency": MS,
    "maxLatency": MS,
    "errors": int,
    "tokensGenerated": int,
    "tokensPrompt": int,
}
WINDOWS: Final = dict.fromkeys(SPANS, WINDOW)
MILLIS: Final = Said(float, "milliseconds")
PERCENTILES: Final = Said(
    {"p50": MILLIS, "p95": MILLIS, "p99": MILLIS}, "of the time range, within 5 %; 0 without requests"
)
DERIVED: Final = {
    "successRate": SHARE,
    "throughput": Said(float, "requests per minute"),
    "avgTokensPerRequest": Said(float, "of the answers"),
}
LIFETIME: Final = Said(
    {"totalRequests": int, "totalErrors": int, "totalTokens": int, "since": Maybe(EPOCH_MS)},
    "since the first start; survives restarts",
)
STREAMING: Final = {
    "recentTTFTs": [MILLIS],
    "ttftPercentiles": {"p50": MILLIS, "p95": MILLIS, "p99": MILLIS},
    "avgTTFT": MILLIS,
    "recentStreamingDurations": [MILLIS],
    "streamingDurationPercentiles": {"p50": MILLIS, "p95": MILLIS, "p99": MILLIS},
    "avgStreamingDuration": MILLIS,
    "recentChunkCounts": [int],
    "chunkCountPercentiles": {"p50": float, "p95": float, "p99": float},
    "avgChunkCount": float,
}


def rounded(number: float) -> float:
    """Four digits behind the point are enough for anybody."""
    return round(number, 4)


def window(system: System, start: float, sums: Sums) -> dict[str, Any]:
    """One window, in `WINDOW`'s shape. `start` on Trio's clock."""
    return {
        "startTime": epoch_ms(start),
        "endTime": epoch_ms(system.clock.now()),
        "count": sums.count,
        "latencySum": round(sums.latency),
        "latencySquaredSum": round(sums.squared),
        "minLatency": round(sums.least) if sums.count else 0,
        "maxLatency": round(sums.most),
        "errors": sums.errors,
        "tokensGenerated": sums.output,
        "tokensPrompt": sums.prompt,
    }


def percentiles(sums: Sums) -> dict[str, float]:
    """In `PERCENTILES`' shape."""
    return {"p50": _at(sums, 0.5), "p95": _at(sums, 0.95), "p99": _at(sums, 0.99)}


def _at(sums: Sums, share: float) -> float:
    return rounded(sums.percentile(share))


def per_second(system: System, start: float, sums: Sums) -> float:
    """Finished requests per second since `start` (Trio's clock), or over the last second if that is less."""
    return sums.count / max(system.clock.now() - start, 1.0)


def derived(system: System, start: float, sums: Sums) -> dict[str, float]:
    """In `DERIVED`'s shape; without requests nothing has failed."""
    return {
        "successRate": rounded(1.0 - sums.error_rate),
        "throughput": rounded(60.0 * per_second(system, start, sums)),
        "avgTokensPerRequest": rounded(sums.output / sums.count) if sums.count else 0.0,
    }


def lifetime(system: System, pair: Pair | None = None) -> dict[str, Any]:
    """In `LIFETIME`'s shape: of a pair, or of the fleet."""
    book = system.statistics.totals.book
    line = book.fleet if pair is None else book.pairs.get(pair)
    if line is None:
        return {"totalRequests": 0, "totalErrors": 0, "totalTokens": 0, "since": None}
    total = line.total
    counts = {"totalRequests": total.requests, "totalErrors": total.errors, "totalTokens": total.tokens}
    return {**counts, "since": milliseconds(total.since)}


def streaming(streams: Sequence[Streamed]) -> dict[str, Any]:
    """The last streamed answers one by one, in `STREAMING`'s shape; at least one."""
    first, duration, chunks = zip(*streams, strict=True)
    return {
        "recentTTFTs": [rounded(each) for each in first],
        "ttftPercentiles": _ranked(first),
        "avgTTFT": _mean(first),
        "recentStreamingDurations": [rounded(each) for each in duration],
        "streamingDurationPercentiles": _ranked(duration),
        "avgStreamingDuration": _mean(duration),
        "recentChunkCounts": list(chunks),
        "chunkCountPercentiles": _ranked(chunks),
        "avgChunkCount": _mean(chunks),
    }


def _mean(values: Sequence[float]) -> float:
    return rounded(sum(values) / len(values))


def _ranked(values: Sequence[float]) -> dict[str, float]:
    """By nearest rank."""
    ordered = sorted(values)
    rank = {name: -(-len(ordered) * percent // 100) for name, percent in (("p50", 50), ("p95", 95), ("p99", 99))}
    return {name: rounded(ordered[place - 1]) for name, place in rank.items()}
