"""Which model files a server's operating system still holds in memory: a load from there is several times as fast."""

from __future__ import annotations


class PageCache:
    """When each file was last in memory. Nothing pushes a file out but time: a server's disk holds few files."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def touch(self, weights: str, now: float) -> None:
        """The file has just been read, or was in use until now."""
        self._last[weights] = now

    def warm(self, weights: str, now: float, seconds: float) -> bool:
        """Whether it was in memory within the last `seconds`."""
        last = self._last.get(weights)
        return last is not None and now - last <= seconds
