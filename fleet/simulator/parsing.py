"""Lists of models as people type them: `llama3:8b:4.7GB,nomic-embed-text:latest:274MB`."""

from __future__ import annotations

import re
from typing import Final

from fleet.simulator.files import ModelFile, model_file

_SIZE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)i?B?", re.IGNORECASE)
_FACTOR: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
DEFAULT_SIZE: Final = 4_700_000_000


def parse_size(text: str) -> int:
    """Bytes in a size such as `4.7GB`; units are decimal. Raises `ValueError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    return int(float(found["number"]) * _FACTOR[found["unit"].upper()])


def parse_models(text: str) -> list[ModelFile]:
    """Models from `name:tag:size` items between commas.

    The part behind the last colon is the size if it ends in `B` and follows a number (so `llama3:8b` has tag `8b` and
    the default size, 4.7 GB, but `llama3:8b:4.7GB` has a size). Raises `ValueError`.
    """
    return [_parse_model(item.strip()) for item in text.split(",") if item.strip()]


def _parse_model(item: str) -> ModelFile:
    name, _, last = item.rpartition(":")
    if name and re.fullmatch(r"\d+(\.\d+)?[KMGT]i?B", last, re.IGNORECASE):
        return model_file(name, parse_size(last))
    return model_file(item, DEFAULT_SIZE)
