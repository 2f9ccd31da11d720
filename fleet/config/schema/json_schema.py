"""JSON Schema of our settings and bodies, with bounds that every validator understands."""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema

_WORDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


class StandardSchema(GenerateJsonSchema):
    """Pydantic writes the bounds of a type that has a validator of its own as `ge` and `le`: nobody reads those."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """The schema of a model."""
        found: JsonSchemaValue = _standard(super().generate(schema, mode))
        return found


def _standard(node: Any) -> Any:
    if isinstance(node, list):
        return [_standard(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {_word(name, value): _standard(value) for name, value in node.items()}


def _word(name: str, value: object) -> str:
    """A bound is a number; a property of that name has a schema."""
    return _WORDS.get(name, name) if isinstance(value, int | float) else name
