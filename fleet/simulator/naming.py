"""Model names as an Ollama server reads them: defaults filled in, short again for show, folded for comparison.

The fleet has its own rules (`fleet/common/model_names.py`): on purpose the simulator shares no code with what it tests.
"""

from __future__ import annotations

import re
from typing import Final

_DEFAULT_HOST: Final = "registry.ollama.ai/"
_DEFAULT_SPACE: Final = "library/"
_VALID: Final = re.compile(r"(?:[\w.:-]+/)?(?:[\w-]+/)?[\w][\w.-]*(?::[\w][\w.-]*)?")


class InvalidName(ValueError):
    """The text cannot name a model."""


def short_name(text: str) -> str:
    """The name `/api/tags` would show: no default host or namespace, always a tag. Raises `InvalidName`."""
    name = text.strip().removesuffix(":local")
    if not _VALID.fullmatch(name):
        raise InvalidName(text)
    name = name.removeprefix(_DEFAULT_HOST).removeprefix(_DEFAULT_SPACE)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def name_key(text: str) -> str:
    """What two spellings of one name have in common. Raises `InvalidName`."""
    return short_name(text).lower()
