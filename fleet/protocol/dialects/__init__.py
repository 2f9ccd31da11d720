"""How the three families of clients speak: Ollama's own API, OpenAI's, Anthropic's."""

from __future__ import annotations

from typing import Final

from fleet.protocol.dialects.anthropic import Anthropic
from fleet.protocol.dialects.base import Dialect, ErrorBody, Statistics, Tap
from fleet.protocol.dialects.ollama import Native, missing_model_text, use_structured
from fleet.protocol.dialects.openai import OpenAI

NATIVE: Final[Dialect] = Native()
OPENAI: Final[Dialect] = OpenAI()
ANTHROPIC: Final[Dialect] = Anthropic()

_BY_NAME: Final = {dialect.name: dialect for dialect in (NATIVE, OPENAI, ANTHROPIC)}


def by_name(name: str) -> Dialect:
    """The dialect called `native`, `openai` or `anthropic`. Raises KeyError for any other name."""
    return _BY_NAME[name]


def dialect_of(path: str) -> Dialect:
    """The dialect that a path's clients expect, for errors of any kind: `/v1/messages...` is Anthropic's."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return ANTHROPIC
    return OPENAI if path.startswith("/v1/") else NATIVE


__all__ = [
    "ANTHROPIC",
    "NATIVE",
    "OPENAI",
    "Dialect",
    "ErrorBody",
    "Statistics",
    "Tap",
    "by_name",
    "dialect_of",
    "missing_model_text",
    "use_structured",
]
