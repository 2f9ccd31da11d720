"""What a server says of itself, read with suspicion: JSON of a bounded size, rows that are models, a version.

A server may be wrong, broken or somebody else's. What it says is parsed in the event loop's turn, so what would take
long to parse is refused by its looks, and what would go on into logs, labels and other answers is small and plain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import orjson

from fleet.common.ids import ModelName
from fleet.common.model_names import canonical
from fleet.protocol.typed_fields import name_of
from fleet.scheduling.server_state import Row

MOST_VALUES: Final = 65_536
"""Of one answer. A list of 4,500 models has about as many; a megabyte of `[],` has ten times that, for 0.2 s."""
MOST_ROWS: Final = 10_000
_ROW_BYTES: Final = 16_384
_VALUE_BYTES: Final = 2_048
_KEY_LENGTH: Final = 64
_VERSION: Final = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
_BEGINNINGS: Final = (b",", b"[", b"{")


def parsed(content: bytes) -> object:
    """The JSON value of an answer.

    Raises `ValueError` with a text of ours: for what is not JSON, nests too deeply (1024), or has too many values.
    """
    if len(content) > MOST_VALUES and sum(map(content.count, _BEGINNINGS)) > MOST_VALUES:
        raise ValueError(f"answered JSON of more than {MOST_VALUES} values")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError("answered something that is not JSON") from error


def mapping(content: bytes) -> Row:
    """The JSON object of an answer. Raises `ValueError` as `parsed` does, and for another kind of value."""
    value = parsed(content)
    if not isinstance(value, dict):
        raise ValueError("answered JSON that is not an object")
    return value


def rows(answer: Mapping[str, object]) -> list[Row]:
    """The models in an answer of /api/tags or /api/ps: those with a name (see `name_of`), without oversized values.

    Raises `ValueError` if `models` is no list.
    """
    found = answer.get("models")
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError("'models' is not a list")
    return [_slim(row) for row in found[:MOST_ROWS] if isinstance(row, dict) and name_of(row)]


def version(answer: Mapping[str, object]) -> str | None:
    """The version that an answer of /api/version tells: 1 to 64 printable ASCII characters; else None."""
    said = answer.get("version")
    return said if isinstance(said, str) and _VERSION.fullmatch(said) else None


def _slim(row: Row) -> Row:
    """The row, without what is too large to be of any use. A name is neither: it is valid."""
    if _fits(row, _ROW_BYTES):
        return row
    return {key: value for key, value in row.items() if len(key) <= _KEY_LENGTH and _fits(value, _VALUE_BYTES)}


def _fits(value: object, most: int) -> bool:
    """Whether it is written in so many bytes; what nests more deeply than can be written never is."""
    try:
        return len(orjson.dumps(value)) <= most
    except orjson.JSONEncodeError:
        return False


def by_name(rows: list[Row]) -> dict[ModelName, Row]:
    """Rows of /api/tags or /api/ps by canonical name; rows without a usable name are dropped."""
    return {canonical(name): row for row in rows if (name := name_of(row))}
