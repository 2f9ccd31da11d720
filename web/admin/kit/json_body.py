"""The body of an admin call as JSON, within bounds."""

from __future__ import annotations

from typing import Final

import orjson

from fleet.common.errors import BadRequest, TooLarge
from web.asgi.quart_request import whole_body

LARGEST: Final = 2**20
"""Bytes of a body of the admin API."""
MOST_VALUES: Final = 5_000


async def json_object(most: int = MOST_VALUES) -> dict[str, object]:
    """The request body as a JSON object; an empty body is an empty one. Raises BadRequest, TooLarge.

    It must be within `LARGEST` bytes and about `most` values: the event loop reads it, and each value may be a problem
    that is told.
    """
    body = await whole_body()
    if not body.strip():
        return {}
    if len(body) > LARGEST or body.count(b",") > most:  # every value but the first has a comma before it
        raise TooLarge(f"the body may have {LARGEST} bytes, and about {most} values")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("the body is not valid JSON", details=str(error)) from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value
