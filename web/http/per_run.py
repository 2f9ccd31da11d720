"""What every event loop of the process has one of: locks and limits of Trio's, which no two loops may share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class PerRun(Generic[T]):
    """Made when it is asked for first within a run of Trio, and gone with that run. Call it from within one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept = trio.lowlevel.RunVar[T]("kept")

    def get(self) -> T:
        """That of this run."""
        try:
            return self._kept.get()
        except LookupError:
            made = self._make()
            self._kept.set(made)
            return made
