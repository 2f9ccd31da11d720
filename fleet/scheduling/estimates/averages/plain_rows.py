"""What was learned, as rows of plain data: names first, then what is known of them. Files are not trusted.

Rows stand in the order of their last use, so that of too many the right ones are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LONGEST_NAME: Final = 1024
"""Characters. No name of a server or model comes near."""


def rows_of(data: object, names: int, most: int) -> Iterator[tuple[tuple[str, ...], object]]:
    """The last `most` rows that begin with so many names; what is no such row is left out."""
    for row in data[-most:] if isinstance(data, list) else ():
        if isinstance(row, list) and len(row) == names + 1:
            keys = tuple(key for key in row[:names] if isinstance(key, str) and len(key) <= LONGEST_NAME)
            if len(keys) == names:
                yield keys, row[names]
