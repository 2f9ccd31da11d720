"""Rows of `/api/tags` and `/api/ps`, with the fields and the time format of Ollama."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fleet.simulator.files import ModelFile
from fleet.simulator.runner import Runner
from fleet.simulator.server import SimServer

_FOREVER: Final = 292 * 365.25 * 86400.0
"""The longest duration Go can hold, in seconds: what a negative keep-alive becomes."""
_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(wall: float) -> str:
    """A wall-clock time (seconds since 1970) as Go prints it."""
    return (_UNIX + timedelta(seconds=wall)).isoformat().replace("+00:00", "Z")


def details(file: ModelFile) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": file.family,
        "families": [file.family],
        "parameter_size": file.parameter_size,
        "quantization_level": file.quantization,
    }


def tags_rows(server: SimServer) -> list[dict[str, Any]]:
    """All installed models, newest first."""
    return [
        {
            "name": file.name,
            "model": file.name,
            "modified_at": rfc3339(file.modified_at),
            "size": file.size,
            "digest": file.digest,
            "details": details(file),
        }
        for file in server.shelf
    ]


def ps_rows(server: SimServer, now: float, wall: float) -> list[dict[str, Any]]:
    """All loaded models (not the one being loaded), latest expiry first; `wall` is the wall-clock time at `now`."""
    server.advance(now)
    runners = sorted(server.runners.values(), key=lambda runner: -runner.expires_at(now))
    return [_ps_row(runner, min(runner.expires_at(now) - now, _FOREVER) + wall) for runner in runners]


def _ps_row(runner: Runner, expires: float) -> dict[str, Any]:
    return {
        "name": runner.file.name,
        "model": runner.file.name,
        "size": runner.file.size,
        "digest": runner.file.digest,
        "details": details(runner.file),
        "expires_at": rfc3339(expires),
        "size_vram": runner.vram,
        "context_length": runner.context,
    }
