"""One sentence on the state of the fleet: how bad it is, what it is about, since when."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    PLANNED = "planned"
    UNKNOWN = "unknown"
    WARN = "warn"
    CRIT = "crit"

    @property
    def glyph(self) -> str:
        """A shape of its own for each, so that nobody has to see colours."""
        return _GLYPHS[self]


_GLYPHS: Final = {Level.OK: "●", Level.PLANNED: "◆", Level.UNKNOWN: "○", Level.WARN: "▲", Level.CRIT: "■"}


@dataclass(frozen=True, slots=True)
class HealthSummary:
    """The verdict line. `headline` may name servers and models, `plain` names none: it is for those without a key.

    `code` is a fixed word for programs; `since` is when the condition began, in epoch seconds; `subjects` are what it
    is about, as `server:gpu-1` or `model:llama3:8b`.
    """

    level: Level
    code: str
    headline: str
    plain: str
    since: float
    subjects: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Glyph and headline."""
        return f"{self.level.glyph} {self.headline}"
