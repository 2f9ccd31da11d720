"""Names of servers, models, endpoints, clients and outcomes, and the small numbers that rows have for them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, insert, select

from actors.storage.history.schema import KINDS, NAMES

MOST: Final = 10_000
"""Names of a kind: models are the clients' to invent. Whatever comes beyond is kept as one, `OTHERS`."""
OTHERS: Final = "(others)"
LONGEST: Final = 256
"""Characters of a name."""


class Names:
    """All of them, in memory as on disk. Forgotten and read anew when a transaction has failed."""

    def __init__(self, connection: Connection, most: int = MOST) -> None:
        self._most = most
        self._numbers: dict[tuple[str, str], int] = {}
        self._names: dict[int, tuple[str, str]] = {}
        self._of_kind = dict.fromkeys(KINDS, 0)
        self._together: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[int, ...]]] = {}
        """What was found for all kinds at once, since most requests are like others; emptied when it is full."""
        self._last = 0
        for number, kind, name in connection.execute(select(NAMES.c.id, NAMES.c.kind, NAMES.c.name)):
            if 1 <= kind <= len(KINDS):
                self._keep(number, KINDS[kind - 1], name)

    def fold(self, kind: str, name: str) -> str:
        """The name as it is kept: cut, and `OTHERS` for a new one where there is no room any more."""
        name = name[:LONGEST]
        if (kind, name) in self._numbers or self._of_kind[kind] < self._most:
            return name
        return OTHERS

    def number(self, connection: Connection, kind: str, name: str) -> int:
        """The number of a folded name, which is written down if it is new. Raises SQLAlchemyError."""
        found = self._numbers.get((kind, name))
        if found is not None:
            return found
        number = self._last + 1
        connection.execute(insert(NAMES).values(id=number, kind=1 + KINDS.index(kind), name=name))
        self._keep(number, kind, name)
        return number

    def kept(self, connection: Connection, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """One name of each of `KINDS`: as they are kept, and their numbers. Raises SQLAlchemyError."""
        found = self._together.get(names)
        if found is None:
            kept = tuple([self.fold(kind, name) for kind, name in zip(KINDS, names, strict=True)])
            found = kept, tuple([self.number(connection, kind, name) for kind, name in zip(KINDS, kept, strict=True)])
            if len(self._together) >= self._most:
                self._together.clear()
            self._together[names] = found
        return found

    def name(self, number: int) -> str:
        """The name that has this number; empty if none has."""
        return self._names.get(number, ("", ""))[1]

    def _keep(self, number: int, kind: str, name: str) -> None:
        self._numbers[kind, name] = number
        self._names[number] = kind, name
        self._of_kind[kind] += 1
        self._last = max(self._last, number)
