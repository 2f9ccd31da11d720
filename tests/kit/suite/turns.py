"""How long the product keeps the event loop to itself: processor time of each step of its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import thread_time

import trio
from trio.abc import Instrument


class Turns(Instrument):
    """Measures the steps of all tasks but the tests' own, their servers among them. `longest`: seconds, and whose."""

    def __init__(self) -> None:
        self.longest = (0.0, "")
        self._began = thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = thread_time() - self._began
        if took > self.longest[0] and not task.name.startswith(("tests.", "<test", "trio._highlevel")):
            self.longest = (took, task.name)


@contextmanager
def measured_turns() -> Iterator[Turns]:
    """Measure as long as this is open."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield turns
    finally:
        trio.lowlevel.remove_instrument(turns)
