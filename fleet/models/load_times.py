"""How long loads of a model took, and how long the next one will take.

Samples come from requests that had to load (Ollama says `load_duration`) and from warm-ups. An estimate is the median
of the last few loads of the pair; else of the model, wherever it was loaded; else its size over the speed at which the
server, or else the fleet, has loaded other models; else a guess: one second and a gigabyte per second.

What it is wrong about: `load_duration` counts the wait behind other loads too (hence medians, not means), and a file
that the server's system still holds in its cache loads faster than one that it does not.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable

COLD: Final = 0.1
"""Seconds. A warm runner says 0.4 to 7 ms, a real load takes 250 ms at the least: what is shorter loaded nothing."""
SHORTEST: Final = COLD
LONGEST: Final = 1800.0
"""Seconds. No sample and no estimate lies outside."""
GUESS: Final = 10.0
"""Seconds, when not even the size of the model is known."""
_GUESSED_START: Final = 1.0
_GUESSED_SPEED: Final = 1e9
_LATELY: Final = 5
_PAIRS: Final = 16_384
_MODELS: Final = 4096
_SERVERS: Final = 1024

_Samples = deque[float]


class LoadTimes:
    """Bounded memory: the pairs, models and servers that were loaded last are remembered."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, _Samples] = LruTable(_PAIRS)
        self._models: LruTable[ModelName, _Samples] = LruTable(_MODELS)
        self._speeds: LruTable[ServerId, _Samples] = LruTable(_SERVERS)
        self._speed: _Samples = _samples()

    def note(self, pair: Pair, seconds: float, size: int | None) -> None:
        """One load ended well after `seconds`; `size` in bytes, None if it is not known. Under `COLD`: it was none."""
        if seconds < COLD:
            return
        seconds = _sane(seconds)
        self._pairs.use(pair, _samples).append(seconds)
        self._models.use(pair.model, _samples).append(seconds)
        if size is not None and size > 0:
            self._speeds.use(pair.server, _samples).append(size / seconds)
            self._speed.append(size / seconds)

    def last(self, pair: Pair) -> float | None:
        """Seconds of the last load that was seen; None if none was."""
        samples = self._pairs.get(pair)
        return samples[-1] if samples else None

    def estimate(self, pair: Pair, size: int | None) -> float:
        """Seconds that a load will probably take, between `SHORTEST` and `LONGEST`."""
        samples = self._pairs.get(pair) or self._models.get(pair.model)
        if samples:
            return median(samples)
        if size is None or size <= 0:
            return GUESS
        speeds = self._speeds.get(pair.server) or self._speed
        return _sane(size / median(speeds) if speeds else _GUESSED_START + size / _GUESSED_SPEED)


def size_of(row: object) -> int | None:
    """The size in bytes that a row of /api/tags or /api/ps gives; None if it gives none that makes sense."""
    size = row.get("size") if isinstance(row, dict) else None
    return size if type(size) is int and 0 < size < 2**60 else None


def _samples() -> _Samples:
    return deque(maxlen=_LATELY)


def _sane(seconds: float) -> float:
    return min(max(seconds, SHORTEST), LONGEST)
