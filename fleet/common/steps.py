"""Work in steps: a generator that yields whenever it has worked for long enough, and returns what it found.

So code without a clock or a loop of its own can be long and yet stop nobody: whoever runs it decides when to go on.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A step takes a millisecond at most, whatever the input."""


def finished(steps: Steps[T]) -> T:
    """Take all steps at once. Raises what they raise."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        value: T = end.value
        return value
