"""Answers as types: one class says what is encoded, and what OpenAPI promises."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Struct, UnsetType, field, structs
from quart import Response

from fleet.common.ids import ServerId
from web.admin import route_table
from web.admin.kit.answers import BYTES, MS, Answer, JsonObject, answer_of
from web.admin.kit.schemas import OneOf, schema
from web.http import responses

WORDS = ("low", "high")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(JsonObject, kw_only=True):
    server_id: str
    size: BYTES


class Whole(Answer, kw_only=True):
    colour: Colour
    took: MS
    ended_at: Annotated[int, "milliseconds since 1970"] | None
    parts: Annotated[list[Part], "the largest first"]
    by_name: dict[str, Part]
    level: Annotated[str, OneOf(WORDS), "how loud"] = "low"
    mood: Literal["good", "bad"] = "good"
    meta: dict[str, Any] | UnsetType = UNSET
    error: Annotated[str, "why not"] | UnsetType = UNSET
    recent: list[int] = field(name="recentTTFTs", default_factory=list)


WHOLE = Whole(
    colour=Colour.BLUE, took=3, ended_at=None, parts=[Part(server_id=ServerId("b"), size=1)], by_name={}, error="x"
)


async def body(answer: Struct) -> bytes:
    found = await responses.typed(answer).get_data(as_text=False)
    assert isinstance(found, bytes)
    return found


async def test_fields_are_written_as_they_are_declared_with_nulls_and_without_what_is_unset() -> None:
    assert await body(WHOLE) == (
        b'{"success":true,"colour":"blue","took":3,"endedAt":null,"parts":[{"serverId":"b","size":1}],"byName":{},'
        b'"level":"low","mood":"good","error":"x","recentTTFTs":[]}'
    )


def test_the_schema_says_units_words_nulls_and_what_may_be_absent() -> None:
    part = {
        "type": "object",
        "properties": {"serverId": {"type": "string"}, "size": {"type": "integer", "description": "bytes"}},
        "required": ["serverId", "size"],
    }
    found = schema(Whole)
    assert found["properties"] == {
        "success": {"type": "boolean"},
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "took": {"type": "integer", "description": "milliseconds"},
        "endedAt": {"anyOf": [{"type": "integer", "description": "milliseconds since 1970"}, {"type": "null"}]},
        "parts": {"type": "array", "items": part, "description": "the largest first"},
        "byName": {"type": "object", "additionalProperties": part},
        "level": {"type": "string", "enum": ["low", "high"], "description": "how loud"},
        "mood": {"type": "string", "enum": ["good", "bad"]},
        "meta": {"type": "object"},
        "error": {"type": "string", "description": "why not"},
        "recentTTFTs": {"type": "array", "items": {"type": "integer"}},
    }
    assert found["required"] == [name for name in found["properties"] if name not in ("meta", "error")]


async def test_what_is_encoded_fits_its_own_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema(Whole))
    jsonschema.validate(json.loads(await body(WHOLE)), schema(Whole))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (list[int], [1, 2], ["x"]),
        (dict[str, int], {"x": 1}, {"x": "y"}),
        (str | None, None, 1),
        (Literal["a", "b"], "a", "c"),
        (Annotated[str, OneOf(("a", "b"))], "a", "c"),
        (Colour, "red", "green"),
        (Annotated[float, "seconds"], 1.5, "1.5"),
        (Part, {"serverId": "a", "size": 1, "more": 1}, {"serverId": "a"}),
        (dict[str, object], {"x": [1]}, [1]),
        (list[ServerId], ["a"], [1]),
    ],
)
def test_a_type_says_what_it_means(kind: Any, good: Any, bad: Any) -> None:
    jsonschema.validate(good, schema(kind))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema(kind))


@pytest.mark.parametrize("kind", [set[int], bytes, tuple[int, str]])
def test_what_no_answer_is_made_of_has_no_schema(kind: Any) -> None:
    with pytest.raises((TypeError, KeyError)):
        schema(kind)


class Number(JsonObject, kw_only=True):
    value: float
    text: str


@given(st.floats(-1e15, 1e15), st.text())
async def test_numbers_and_texts_look_as_in_the_answers_that_have_no_type(value: float, text: str) -> None:
    assert await body(Number(value=value, text=text)) == orjson.dumps({"value": value, "text": text})


def descendants(kind: type[Struct]) -> Iterator[type[Struct]]:
    for each in kind.__subclasses__():
        yield each
        yield from descendants(each)


def test_every_answer_begins_with_its_success() -> None:
    """A class that forgets `kw_only` would put its own fields first."""
    assert route_table.TOPICS
    for each in descendants(Answer):
        assert structs.fields(each)[0].name == "success", each


async def plain(asked: object) -> dict[str, Any]:
    return {}


async def typed(asked: object) -> Whole:
    return WHOLE


async def either(asked: object) -> Whole | Response:
    return WHOLE


async def ambiguous(asked: object) -> Whole | Part:
    return WHOLE


def test_what_a_view_answers_is_read_from_its_annotation() -> None:
    assert answer_of(plain) is None
    assert answer_of(typed) is answer_of(either) is Whole
    with pytest.raises(TypeError, match="more ways than one"):
        answer_of(ambiguous)
