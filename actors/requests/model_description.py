"""A model's description on its way through: the one answer of a single server whose fields clients check by type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import orjson

from actors.requests.held_responses import hold
from fleet.protocol.typed_fields import description

if TYPE_CHECKING:
    from actors.upstream.pool import UpstreamResponse

_LOOKED_AT: Final = 256 * 1024
"""A longer one (all tokens of a model, asked for with `verbose`) passes as it is: to read it would delay others."""


async def described(
    response: UpstreamResponse, held: bytes, raw: bytes, beat: Callable[[], None]
) -> tuple[bytes, bytes]:
    """What of a good answer of `/api/show` to pass on, as `hold` gives it; `response.length` suits it.

    Byte for byte as it came, unless some field would break a client (see `protocol.typed_fields`). Raises BackendError.
    """
    if not response.complete and len(held) < _LOOKED_AT:
        rest, _ = await hold(response, _LOOKED_AT - len(held), beat)
        held, raw = held + rest, b""
    if not response.complete or len(held) > _LOOKED_AT:
        return held, raw
    better = _better(held)
    if better is None:
        return held, raw
    if response.length is not None:
        response.length = len(better)
    return better, b""


def _better(body: bytes) -> bytes | None:
    """The same with its fields mended; None if there is nothing to mend, or nothing that can be."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(given, dict):
        return None
    made = description(given)
    return None if made == given else orjson.dumps(made)
