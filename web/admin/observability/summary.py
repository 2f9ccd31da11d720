"""The figures of the last minutes, and the machine, in the shape of the monitoring stack's reference.

Seconds, percent from 0 to 100, GiB where a name says `gb`, shares from 0 to 1. What nothing was measured of is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Struct

from fleet.common.times import iso
from fleet.observability.host_sample import HostSample
from web.admin.kit.answers import ISO, SECONDS, SHARE
from web.admin.models.figures import MINUTE, ModelFigures, by_model
from web.admin.observability.window_figures import rounded

if TYPE_CHECKING:
    from actors.system import System
    from fleet.observability.statistics.aggregates import Sums

NOTHING: Final = HostSample(0.0)
"""What is known of a machine that was not looked at."""
_GIB: Final = 2**30

Percent = Annotated[float, "percent"] | None
Watts = Annotated[float, "watts"] | None
Gibibytes = Annotated[float, "GiB"] | None
RATE = Annotated[float, "tokens generated per second, of all answers together, over the last minute"]


class SpanJson(Struct, kw_only=True, gc=False):
    """What the figures are about."""

    span: str
    since: Annotated[ISO, "up to one bucket before what was asked for"]


class FleetSummaryJson(Struct, kw_only=True, gc=False):
    """The fleet."""

    total_requests: Annotated[int, "since the first start"]
    requests: Annotated[int, "in the window, which the next figures are about too"]
    avg_latency: SECONDS | None
    success_rate: SHARE | None
    error_rate: SHARE | None
    tokens_per_second: RATE
    active_requests: int
    queue_size: int


class MachineSummaryJson(Struct, kw_only=True, gc=False):
    """The machine on which the fleet's process runs."""

    cpu_percent: Percent
    memory_percent: Percent
    memory_available_gb: Gibibytes
    memory_used_gb: Gibibytes
    gpu_utilization_percent: Percent
    power_cpu_watts: Watts
    power_gpu_watts: Watts


class ModelSummaryJson(Struct, kw_only=True, gc=False):
    """One model, on whatever servers."""

    requests: Annotated[int, "in the window"]
    avg_latency: SECONDS | None
    tokens_per_second: RATE
    last_request: Annotated[ISO, "survives restarts"] | None


class SummaryAnswer(Struct, kw_only=True, gc=False):
    """The figures of the last minutes."""

    timestamp: ISO
    window: SpanJson
    summary: FleetSummaryJson
    system: MachineSummaryJson
    models: dict[str, ModelSummaryJson]


async def summarised(system: System, text: str, span: float) -> SummaryAnswer:
    """The last `span` seconds, which were written `text`; others run in between."""
    await system.statistics.request_log.catch_up()
    models = await by_model(system, span)
    start, sums = system.statistics.totals.window(span)
    at = system.clock.reading()
    began, minute = system.statistics.totals.window(MINUTE)
    seen = max(at.now - began, 1.0)
    return SummaryAnswer(
        timestamp=iso(at.wall),
        window=SpanJson(span=text, since=at.iso(start)),
        summary=_fleet(system, sums, minute.output / seen),
        system=_machine(system.host.latest or NOTHING),
        models={model: _model(models[model], seen) for model in sorted(models)},
    )


def total_requests(system: System) -> int:
    """All that ever ended, since the first start."""
    return system.statistics.totals.book.fleet.total.requests


def mean_seconds(milliseconds: float, number: int) -> float | None:
    """The mean in seconds; None of nothing."""
    return rounded(milliseconds / number / 1000) if number else None


def tenths(value: float | None) -> float | None:
    """One digit behind the point."""
    return None if value is None else round(value, 1)


def _fleet(system: System, sums: Sums, pace: float) -> FleetSummaryJson:
    return FleetSummaryJson(
        total_requests=total_requests(system),
        requests=sums.count,
        avg_latency=mean_seconds(sums.latency, sums.count),
        success_rate=_share(sums.count - sums.errors, sums.count),
        error_rate=_share(sums.errors, sums.count),
        tokens_per_second=rounded(pace),
        active_requests=system.in_flight,
        queue_size=system.queries.queue_view(0).waiting,
    )


def _machine(sample: HostSample) -> MachineSummaryJson:
    return MachineSummaryJson(
        cpu_percent=tenths(sample.cpu_percent),
        memory_percent=tenths(sample.memory_percent),
        memory_available_gb=_gib(sample.memory_available),
        memory_used_gb=_gib(sample.memory_used),
        gpu_utilization_percent=tenths(sample.gpu_percent),
        power_cpu_watts=tenths(sample.power.get("cpu")),
        power_gpu_watts=tenths(sample.power.get("gpu")),
    )


def _model(figures: ModelFigures, seen: float) -> ModelSummaryJson:
    return ModelSummaryJson(
        requests=figures.requests,
        avg_latency=mean_seconds(figures.latency, figures.requests),
        tokens_per_second=rounded(figures.tokens / seen),
        last_request=iso(figures.last_used),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / _GIB, 2)
