"""Which version this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def own_version() -> str:
    """The version of the installed package; "0" when it is not installed."""
    try:
        return version("fleet-for-ollama")
    except PackageNotFoundError:
        return "0"
