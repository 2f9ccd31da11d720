from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.simulator.tools import Tool, arguments, choose, read_tools

WEATHER = Tool("get_weather", "the weather of a city", {"type": "object", "properties": {"city": {"type": "string"}}})
TIME = Tool("get_time", "what time it is somewhere")
MANY = [Tool(f"tool_{n}") for n in range(20)]


@pytest.mark.parametrize(
    ("tools", "choice", "text", "wanted"),
    [
        ([], None, "get_weather", None),
        ([WEATHER], None, "hi", "get_weather"),
        ([WEATHER], "none", "get_weather", None),
        ([TIME, WEATHER], "auto", "what is the weather in Rome?", "get_weather"),
        ([WEATHER, TIME], {"type": "function", "function": {"name": "get_time"}}, "the weather?", "get_time"),
        ([WEATHER, TIME], {"type": "tool", "name": "get_time"}, "the weather?", "get_time"),
        (MANY, "auto", "write a poem", None),
        (MANY, "auto", "use tool_7, please", "tool_7"),
        (MANY, "required", "write a poem", "tool_0"),
        (MANY, {"type": "any"}, "write a poem", "tool_0"),
        (MANY, {"type": "auto"}, "write a poem", None),
    ],
)
def test_which_tool_is_called(tools: list[Tool], choice: Any, text: str, wanted: str | None) -> None:
    call = choose(tools, choice, text)
    assert (call.name if call else None) == wanted


def test_tools_are_read_in_both_forms() -> None:
    schema = {"type": "object"}
    given = [
        {"type": "function", "function": {"name": "a", "description": "x", "parameters": schema}},
        {"name": "b", "description": "y", "input_schema": schema},
        {"type": "web_search_20250305", "name": "web_search"},
        5,
        {"function": 5},
        {"name": 5},
    ]
    assert [(tool.name, tool.description) for tool in read_tools(given)] == [("a", "x"), ("b", "y"), ("web_search", "")]
    assert read_tools({"name": "a"}) == []


def test_arguments_suit_their_schema() -> None:
    schema = {
        "type": "object",
        "required": ["city", "days", "unit", "where"],
        "properties": {
            "city": {"type": "string"},
            "days": {"type": ["integer", "null"]},
            "unit": {"enum": ["C", "F"]},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}, "tags": {"type": "array"}}},
            "not_needed": {"type": "string"},
        },
    }
    wanted = {"city": "simulated", "days": 1, "unit": "C", "where": {"lat": 1.5, "tags": ["simulated"]}}
    assert arguments(schema) == wanted


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["object", "array", "string", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "enum", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_ANY, _ANY)
def test_no_schema_and_no_choice_is_too_odd(schema: Any, choice: Any) -> None:
    tools = read_tools([{"name": "a", "input_schema": schema}, schema])
    call = choose(tools, choice, "a")
    assert call is None or orjson.dumps(dict(call.arguments))
