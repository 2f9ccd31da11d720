"""How a message travels: on one line, without control characters, in JSON that no client's line splitter can cut."""

from __future__ import annotations

import json
import re
from typing import Final

LONGEST: Final = 2000
"""Characters of a message that reach a client."""

# What str.splitlines() and its relatives take for the end of a line, and all other control characters.
_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def one_line(text: str, fallback: str = "internal error") -> str:
    """The text on one line, control characters escaped, at most `LONGEST` characters, never empty."""
    text = _BREAKS.sub(" ", text[: LONGEST * 2]).strip()
    text = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    if len(text) > LONGEST:
        text = text[: LONGEST - 3] + "..."
    return text or fallback


def compact(value: object) -> bytes:
    """One line of ASCII JSON. All else is escaped: raw U+2028 or U+0085 would split the line in some clients."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
