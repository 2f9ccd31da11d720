"""Paths as the multiplexer in front of Ollama's router wants them: no empty, `.` or `..` segments. Pure, linear."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_KEPT: Final = "/%$&+,:;=@!*'()~"
"""What a path may hold beside letters, digits, `-`, `.` and `_`; the rest (a backslash: browsers take it for a slash)
is encoded."""


def tidied(path: str) -> str:
    """The path (as it came, not decoded) as Go's `cleanPath` has it: rooted; a slash at its end stays."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    whole = "/" + "/".join(kept)
    return whole + "/" if kept and path.endswith("/") else whole


def moved(method: str, path: str) -> tuple[int, str] | None:
    """Where a request for an untidy path is sent: the status (301 for GET and HEAD, 307 for what may have a body), and
    a path on this very host. None: the path is tidy."""
    if not path.startswith("/"):
        return None
    right = tidied(path)
    if right == path:
        return None
    return (301 if method in ("GET", "HEAD") else 307), quote(right, safe=_KEPT)
