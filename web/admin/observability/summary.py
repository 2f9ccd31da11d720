"""The figures of the last minutes, and the machine, in the shape of the monitoring stack's reference.

Seconds, percent from 0 to 100, GiB where a name says `gb`, shares from 0 to 1. What nothing was measured of is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fleet.common.times import iso
from fleet.observability.host_sample import HostSample
from web.admin.kit.schemas import ISO, SECONDS, SHARE, Each, Maybe, Said
from web.admin.models.figures import MINUTE, ModelFigures, by_model
from web.admin.observability.window_figures import rounded
from web.http.units import epoch, now_iso

if TYPE_CHECKING:
    from actors.system import System
    from fleet.observability.statistics.aggregates import Sums

NOTHING: Final = HostSample(0.0)
"""What is known of a machine that was not looked at."""
_GIB: Final = 2**30

PERCENT: Final = Maybe(Said(float, "percent"))
WATTS: Final = Maybe(Said(float, "watts"))
RATE: Final = Said(float, "tokens generated per second, of all answers together, over the last minute")
SUMMARY: Final = {
    "timestamp": ISO,
    "window": {"span": str, "since": Said(ISO, "up to one bucket before what was asked for")},
    "summary": {
        "total_requests": Said(int, "since the first start"),
        "requests": Said(int, "in the window, which the next figures are about too"),
        "avg_latency": Maybe(SECONDS),
        "success_rate": Maybe(SHARE),
        "error_rate": Maybe(SHARE),
        "tokens_per_second": RATE,
        "active_requests": int,
        "queue_size": int,
    },
    "system": {
        "cpu_percent": PERCENT,
        "memory_percent": PERCENT,
        "memory_available_gb": Maybe(Said(float, "GiB")),
        "memory_used_gb": Maybe(Said(float, "GiB")),
        "gpu_utilization_percent": PERCENT,
        "power_cpu_watts": WATTS,
        "power_gpu_watts": WATTS,
    },
    "models": Each(
        {
            "requests": Said(int, "in the window"),
            "avg_latency": Maybe(SECONDS),
            "tokens_per_second": RATE,
            "last_request": Maybe(Said(ISO, "survives restarts")),
        }
    ),
}


async def summarised(system: System, span: float) -> dict[str, Any]:
    """The last `span` seconds, in `SUMMARY`'s shape but for the name of the window; others run in between."""
    await system.statistics.request_log.catch_up()
    models = await by_model(system, span)
    start, sums = system.statistics.totals.window(span)
    began, minute = system.statistics.totals.window(MINUTE)
    seen = max(system.clock.now() - began, 1.0)
    return {
        "timestamp": now_iso(),
        "window": {"since": iso(epoch(start))},
        "summary": _fleet(system, sums, minute.output / seen),
        "system": _machine(system.host.latest or NOTHING),
        "models": {model: _model(models[model], seen) for model in sorted(models)},
    }


def total_requests(system: System) -> int:
    """All that ever ended, since the first start."""
    return system.statistics.totals.book.fleet.total.requests


def mean_seconds(milliseconds: float, number: int) -> float | None:
    """The mean in seconds; None of nothing."""
    return rounded(milliseconds / number / 1000) if number else None


def tenths(value: float | None) -> float | None:
    """One digit behind the point."""
    return None if value is None else round(value, 1)


def _fleet(system: System, sums: Sums, pace: float) -> dict[str, Any]:
    return {
        "total_requests": total_requests(system),
        "requests": sums.count,
        "avg_latency": mean_seconds(sums.latency, sums.count),
        "success_rate": _share(sums.count - sums.errors, sums.count),
        "error_rate": _share(sums.errors, sums.count),
        "tokens_per_second": rounded(pace),
        "active_requests": system.in_flight,
        "queue_size": system.queries.queue_view(0).waiting,
    }


def _machine(sample: HostSample) -> dict[str, Any]:
    return {
        "cpu_percent": tenths(sample.cpu_percent),
        "memory_percent": tenths(sample.memory_percent),
        "memory_available_gb": _gib(sample.memory_available),
        "memory_used_gb": _gib(sample.memory_used),
        "gpu_utilization_percent": tenths(sample.gpu_percent),
        "power_cpu_watts": tenths(sample.power.get("cpu")),
        "power_gpu_watts": tenths(sample.power.get("gpu")),
    }


def _model(figures: ModelFigures, seen: float) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "avg_latency": mean_seconds(figures.latency, figures.requests),
        "tokens_per_second": rounded(figures.tokens / seen),
        "last_request": iso(figures.last_used),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / _GIB, 2)
