"""What an answer is made of: thoughts, then words or the call of a tool. How they are written is each dialect's."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fleet.simulator.tools import ToolCall, choose, read_tools
from web.simulator.engine.request_model import text_of

_SHARE: Final = 3
"""One token of so many is a thought, if the client asks for thoughts."""


class TokenKind(enum.Enum):
    """What one token belongs to."""

    THOUGHT = "thinking"
    WORD = "text"
    CALL = "tool_use"


@dataclass(frozen=True, slots=True)
class AnswerParts:
    """How the tokens of one answer are shared out. `serial` tells the calls of a server apart."""

    thoughts: int = 0
    call: ToolCall | None = None
    serial: int = 0

    def kind(self, index: int) -> TokenKind:
        """Of the token at this place. The tokens of a call are not shown one by one: Ollama parses it first."""
        if index < self.thoughts:
            return TokenKind.THOUGHT
        return TokenKind.WORD if self.call is None else TokenKind.CALL

    def split(self, tokens: tuple[str, ...]) -> tuple[str, str]:
        """The thoughts and the words of a whole answer."""
        words = "" if self.call is not None else "".join(tokens[self.thoughts :])
        return "".join(tokens[: self.thoughts]), words

    @property
    def call_id(self) -> str:
        return f"call_sim{self.serial}"

    @property
    def arguments(self) -> str:
        """The call's arguments as text."""
        return "" if self.call is None else orjson.dumps(dict(self.call.arguments)).decode()


def parts_of(tokens: tuple[str, ...], serial: int, *, think: bool, call: ToolCall | None) -> AnswerParts:
    """Share out the tokens of an answer. Thoughts alone are no answer: the last token is something else."""
    thoughts = min(max(1, len(tokens) // _SHARE), len(tokens) - 1) if think and tokens else 0
    return AnswerParts(thoughts, call, serial)


def call_for(request: dict[str, Any]) -> ToolCall | None:
    """The tool that the model calls in answer to a chat request, if any.

    What a tool has answered is answered in words, or no agent would ever end.
    """
    turns = [turn for turn in request.get("messages") or () if isinstance(turn, dict)]
    if not turns or turns[-1].get("role") != "user" or _is_result(turns[-1].get("content")):
        return None
    return choose(read_tools(request.get("tools")), request.get("tool_choice"), text_of(turns[-1].get("content")))


def _is_result(content: Any) -> bool:
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)
