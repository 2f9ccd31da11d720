"""The request line and Host, put in order before anybody routes or forwards by them."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

from fleet.protocol.headers import field

# `GET http://host/path`: what a client sends that takes us for a proxy, and every server has to understand.
_ABSOLUTE = re.compile(rb"https?://([^/@]+)(/.*)?", re.IGNORECASE)
_HARMLESS: Final = b"localhost"


def settle(scope: Any) -> str | None:
    """Make the target a plain path, in both of its spellings; the Host that was meant, or None for a bad target.

    The Host field itself is replaced: it has done its work, and frameworks raise on odd ones.
    """
    host = _take_host(scope)
    raw = scope["raw_path"]
    if raw.startswith(b"/") or (raw == b"*" and scope.get("method") == "OPTIONS"):
        return host
    split = split_absolute(raw)
    if split is None:
        return None
    meant, scope["raw_path"] = split
    scope["path"] = unquote(scope["raw_path"].decode("ascii"))
    return meant.decode("latin-1")


def split_absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Host, and path with query, of a target that is a whole URL; None for anything else."""
    absolute = _ABSOLUTE.fullmatch(target)
    return (absolute[1], absolute[2] or b"/") if absolute is not None else None


def _take_host(scope: Any) -> str:
    host = field(scope["headers"], b"host")
    if host is None:
        return ""
    scope["headers"] = [(name, _HARMLESS if name == b"host" else value) for name, value in scope["headers"]]
    return host.decode("latin-1")
