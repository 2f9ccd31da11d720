"""How sums over a window are shown: the reference's fields, milliseconds, whole numbers where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import field

from fleet.common.times import ClockReading, milliseconds
from web.admin.kit.answers import EPOCH_MS, MS, SHARE, JsonObject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.system import System
    from fleet.common.ids import Pair
    from fleet.observability.statistics.aggregates import Sums
    from fleet.observability.statistics.totals import Streamed

SPANS: Final = (60.0, 300.0, 900.0, 3_600.0, 86_400.0)
"""The windows that the reference shows, in `WindowsJson`'s order; seconds."""

MILLIS = Annotated[float, "milliseconds"]


class WindowJson(JsonObject, kw_only=True):
    """One window."""

    start_time: Annotated[EPOCH_MS, "where the window begins: the edge of a bucket, or the start of this process"]
    end_time: EPOCH_MS
    count: int
    latency_sum: MS
    latency_squared_sum: Annotated[int, "square milliseconds"]
    min_latency: MS
    max_latency: MS
    errors: int
    tokens_generated: int
    tokens_prompt: int


class WindowsJson(JsonObject):
    """The windows that the reference shows."""

    one_minute: WindowJson = field(name="1m")
    five_minutes: WindowJson = field(name="5m")
    quarter: WindowJson = field(name="15m")
    hour: WindowJson = field(name="1h")
    day: WindowJson = field(name="24h")


class LatencyPercentilesJson(JsonObject, kw_only=True):
    """Milliseconds."""

    p50: MILLIS
    p95: MILLIS
    p99: MILLIS


class ChunkPercentilesJson(JsonObject, kw_only=True):
    """Chunks of an answer."""

    p50: float
    p95: float
    p99: float


PERCENTILES = Annotated[LatencyPercentilesJson, "of the time range, within 5 %; 0 without requests"]


class DerivedJson(JsonObject, kw_only=True):
    """What follows from the sums."""

    success_rate: SHARE
    throughput: Annotated[float, "requests per minute"]
    avg_tokens_per_request: Annotated[float, "of the answers"]


class LifetimeJson(JsonObject, kw_only=True):
    """Totals."""

    total_requests: int
    total_errors: int
    total_tokens: int
    since: EPOCH_MS | None


LIFETIME = Annotated[LifetimeJson, "since the first start; survives restarts"]


class StreamingJson(JsonObject, kw_only=True):
    """The last streamed answers one by one."""

    recent_ttfts: list[MILLIS] = field(name="recentTTFTs")
    ttft_percentiles: LatencyPercentilesJson
    avg_ttft: MILLIS = field(name="avgTTFT")
    recent_streaming_durations: list[MILLIS]
    streaming_duration_percentiles: LatencyPercentilesJson
    avg_streaming_duration: MILLIS
    recent_chunk_counts: list[int]
    chunk_count_percentiles: ChunkPercentilesJson
    avg_chunk_count: float


def rounded(number: float) -> float:
    """Four digits behind the point are enough for anybody."""
    return round(number, 4)


def windows(at: ClockReading, found: Mapping[float, tuple[float, Sums]]) -> WindowsJson:
    """The reference's windows; `found` has, by seconds, where each begins on Trio's clock, and its sums."""
    return WindowsJson(*(_window(at, *found[each]) for each in SPANS))


def _window(at: ClockReading, start: float, sums: Sums) -> WindowJson:
    return WindowJson(
        start_time=at.epoch_ms(start),
        end_time=at.epoch_ms(at.now),
        count=sums.count,
        latency_sum=round(sums.latency),
        latency_squared_sum=round(sums.squared),
        min_latency=round(sums.least) if sums.count else 0,
        max_latency=round(sums.most),
        errors=sums.errors,
        tokens_generated=sums.output,
        tokens_prompt=sums.prompt,
    )


def percentiles(sums: Sums) -> LatencyPercentilesJson:
    """Those that are shown of latencies."""
    p50, p95, p99 = (rounded(sums.percentile(share)) for share in (0.5, 0.95, 0.99))
    return LatencyPercentilesJson(p50=p50, p95=p95, p99=p99)


def per_second(system: System, start: float, sums: Sums) -> float:
    """Finished requests per second since `start` (Trio's clock), or over the last second if that is less."""
    return sums.count / max(system.clock.now() - start, 1.0)


def derived(system: System, start: float, sums: Sums) -> DerivedJson:
    """Without requests nothing has failed."""
    return DerivedJson(
        success_rate=rounded(1.0 - sums.error_rate),
        throughput=rounded(60.0 * per_second(system, start, sums)),
        avg_tokens_per_request=rounded(sums.output / sums.count) if sums.count else 0.0,
    )


def lifetime(system: System, pair: Pair | None = None) -> LifetimeJson:
    """Of a pair, or of the fleet."""
    book = system.statistics.totals.book
    line = book.fleet if pair is None else book.pairs.get(pair)
    if line is None:
        return LifetimeJson(total_requests=0, total_errors=0, total_tokens=0, since=None)
    total = line.total
    return LifetimeJson(
        total_requests=total.requests,
        total_errors=total.errors,
        total_tokens=total.tokens,
        since=milliseconds(total.since),
    )


def streaming(streams: Sequence[Streamed]) -> StreamingJson:
    """The last streamed answers; at least one."""
    first, duration, chunks = zip(*streams, strict=True)
    return StreamingJson(
        recent_ttfts=[rounded(each) for each in first],
        ttft_percentiles=LatencyPercentilesJson(**_ranked(first)),
        avg_ttft=_mean(first),
        recent_streaming_durations=[rounded(each) for each in duration],
        streaming_duration_percentiles=LatencyPercentilesJson(**_ranked(duration)),
        avg_streaming_duration=_mean(duration),
        recent_chunk_counts=list(chunks),
        chunk_count_percentiles=ChunkPercentilesJson(**_ranked(chunks)),
        avg_chunk_count=_mean(chunks),
    )


def _mean(values: Sequence[float]) -> float:
    return rounded(sum(values) / len(values))


def _ranked(values: Sequence[float]) -> dict[str, float]:
    """By nearest rank."""
    ordered = sorted(values)
    rank = {name: -(-len(ordered) * percent // 100) for name, percent in (("p50", 50), ("p95", 95), ("p99", 99))}
    return {name: rounded(ordered[place - 1]) for name, place in rank.items()}
