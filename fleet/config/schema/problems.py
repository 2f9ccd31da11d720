"""What is wrong with a configuration, told all at once and never with a secret in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.common.errors import BadRequest

LONGEST_SHOWN = 60
MOST_TOLD = 100
"""Problems of one configuration that are spelled out; a hostile one could have millions."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `path` is dotted, `message` one line, `source` says where the value came from."""

    path: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        """The problem as one line: path, message and, if known, the source in brackets."""
        where = f" ({self.source})" if self.source else ""
        return f"{self.path}: {self.message}{where}"


class ConfigError(BadRequest):
    """The configuration cannot be used; from the admin API this is a plain 400.

    `problems` holds every reason, or the first hundred and how many more there are.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems[:MOST_TOLD])
        if len(problems) > MOST_TOLD:
            self.problems.append(Problem("file", f"{len(problems) - MOST_TOLD} more problems"))
        lines = [str(problem) for problem in self.problems]
        head = "configuration: " if len(problems) == 1 else f"configuration, {len(problems)} problems: "
        super().__init__(head + "; ".join(lines), details="\n".join(lines))
        found = [{"path": each.path, "message": each.message, "source": each.source} for each in self.problems]
        self.fields = {"problems": found}


class Conflicts(ValueError):
    """Raised inside a validator when several values do not go together: (path below the validator, message) each."""

    def __init__(self, found: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(message for _, message in found))
        self.found = tuple(found)


def shown(value: object) -> str:
    """A value as it may stand in a message: quoted, one line, ASCII, cut. Never call it with a secret."""
    text = str(value)
    return json.dumps(text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "...")


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an "unknown key" message: the known name that `word` was probably meant to be, or nothing."""
    # Both sides are folded so that `MaxSize` still finds `max_size`; `word` is cut because difflib is quadratic.
    folded = {_fold(name): name for name in known}
    found = difflib.get_close_matches(_fold(word[:LONGEST_SHOWN]), folded, n=1)
    return f"; did you mean {folded[found[0]]}?" if found else ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
