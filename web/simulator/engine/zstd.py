"""Compressed request bodies, which Ollama takes on `/v1` routes only."""

from __future__ import annotations

from typing import Final

import zstandard

from web.simulator.engine.errors import ApiError
from web.simulator.engine.exchange import SimulatedExchange

_LIMIT: Final = 20 * 1024 * 1024
_WINDOW: Final = 8 * 1024 * 1024


def decompress(exchange: SimulatedExchange) -> None:
    """Replace a zstd body by what it holds. Raises `ApiError` 400."""
    if not exchange.path.startswith("/v1/") or exchange.seen.header("content-encoding") != "zstd":
        return
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(exchange.body)
        body = reader.read(_LIMIT + 1)
    except zstandard.ZstdError:
        raise ApiError(400, "invalid zstd data") from None
    if len(body) > _LIMIT:
        raise ApiError(400, "request body too large")
    exchange.body = body
