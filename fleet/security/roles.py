"""What a key may do: three roles, each of which may do everything that the one below it may."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.IntEnum):
    """`CLIENT`: use models, ask for health. `OPERATOR`: see and run the fleet. `ADMIN`: change what it is."""

    CLIENT = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """As configuration and API write it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """The role of a word. Raises `KeyError`."""
        return cls[word.upper()]

    @classmethod
    def words(cls) -> tuple[str, ...]:
        """All roles, the least first."""
        return tuple(role.word for role in cls)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the name of a key (never the key), and what it may do."""

    name: str
    role: Role


ANONYMOUS = "anonymous"
"""The name of somebody without a key."""
