"""Which tool a simulated model calls, and with what. Pure, and the same for the same request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_FEW: Final = 8
"""Among so many tools one is always called; an agent that offers dozens names the one it means, or gets words."""
_DEPTH: Final = 3
_MOST: Final = 20
_WORD: Final = re.compile(r"[a-z]{4,40}")
_PLAIN: Final[Mapping[str, Any]] = {"string": "simulated", "integer": 1, "number": 1.5, "boolean": True, "null": None}


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that a client offers; `schema` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model wants called."""

    name: str
    arguments: Mapping[str, Any]


def read_tools(given: Any) -> list[Tool]:
    """The tools of a request, in OpenAI's form (`function`, which is also Ollama's) or Anthropic's (`input_schema`)."""
    found = []
    for each in given if isinstance(given, list) else ():
        about = each.get("function", each) if isinstance(each, dict) else None
        if isinstance(about, dict) and isinstance(name := about.get("name"), str) and name:
            schema = about.get("parameters", about.get("input_schema"))
            found.append(Tool(name, str(about.get("description") or ""), schema if isinstance(schema, dict) else {}))
    return found


def choose(tools: list[Tool], choice: Any, text: str) -> ToolCall | None:
    """The call with which the model answers `text`, None for an answer in words.

    `choice` is the request's `tool_choice`, in either form.
    """
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind == "none" or not tools:
        return None
    named = _named(choice) if isinstance(choice, dict) else None
    wanted = [tool for tool in tools if tool.name == named] or [tool for tool in tools if _mentions(text, tool.name)]
    if not wanted and (len(tools) <= _FEW or kind in ("any", "required", "tool", "function")):
        said = _words(text)
        wanted = [max(tools, key=lambda tool: (len(_words(tool.name) & said), len(_words(tool.description) & said)))]
    return ToolCall(wanted[0].name, arguments(wanted[0].schema)) if wanted else None


def arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the required properties of an object's schema; for all of them if none is required."""
    value = _value({**schema, "type": "object"}, _DEPTH)
    return value if isinstance(value, dict) else {}


def _named(choice: Mapping[str, Any]) -> Any:
    function = choice.get("function")
    return function.get("name") if isinstance(function, dict) else choice.get("name")


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text[:10_000].lower()))


def _value(schema: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth == 0:
        return _PLAIN["string"]
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if isinstance(options := schema.get("enum"), list) and options:
        return options[0]
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return _object(schema, depth)
    if kind == "array":
        return [_value(schema.get("items"), depth - 1)]
    return _PLAIN.get(kind, _PLAIN["string"]) if isinstance(kind, str) else _PLAIN["string"]


def _object(schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    names = [name for name in required if isinstance(name, str) and name in known] if isinstance(required, list) else []
    return {name: _value(known[name], depth - 1) for name in (names or list(known))[:_MOST]}
