"""Numbers and words that the Linux kernel shows as files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MOST: Final = 4096
"""Bytes that are read of one file."""


def word(path: Path) -> str:
    """What a file says. Raises OSError when it is not there or not for us."""
    with path.open("rb") as file:
        return file.read(MOST).decode("ascii", "replace").strip()


def number(path: Path) -> int | None:
    """The whole number in a file; None if there is none."""
    try:
        return int(word(path))
    except (OSError, ValueError):
        return None


def first_number(paths: list[Path]) -> int | None:
    """The first number there is."""
    return next((found for path in paths if (found := number(path)) is not None), None)
