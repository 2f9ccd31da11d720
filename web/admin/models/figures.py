"""Figures of finished requests by model: those of its pairs, put together over all servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from actors.system import System
from fleet.common.ids import ANY_MODEL, ModelName, Pair
from web.http.units import take_turns

MINUTE: Final = 60.0


@dataclass(slots=True)
class ModelFigures:
    """One model over a window: milliseconds from arrival to end, and tokens of answers of the last minute.

    `last_used` is when a request for it last ended, epoch seconds; it may lie before the window.
    """

    requests: int = 0
    errors: int = 0
    latency: float = 0.0
    tokens: int = 0
    last_used: float | None = None


async def by_model(system: System, span: float) -> dict[ModelName, ModelFigures]:
    """Every model that was asked for in the last `span` seconds, or was ever and is still listed by a server.

    At most a week. Bounded as the tally's pairs are; others run in between.
    """
    found: dict[ModelName, ModelFigures] = {}
    for number, pair in enumerate(list(system.statistics.totals.book.pairs)):
        if pair.model != ANY_MODEL:
            _add(system, pair, span, found.setdefault(pair.model, ModelFigures()))
        await take_turns(number)
    installed = {model for cell in system.servers.values() for model in cell.state.models}
    return {model: each for model, each in found.items() if each.requests or model in installed}


def _add(system: System, pair: Pair, span: float, model: ModelFigures) -> None:
    spans = tuple(sorted({MINUTE, span}))
    windows = dict(zip(spans, system.statistics.totals.windows(spans, pair), strict=True))
    sums = windows[span][1]
    model.requests += sums.count
    model.errors += sums.errors
    model.latency += sums.latency + sums.waited  # a pair's times are without the wait for a slot
    model.tokens += windows[MINUTE][1].output
    used = system.statistics.totals.last_used(pair)
    if used is not None:
        model.last_used = max(used, model.last_used or used)
