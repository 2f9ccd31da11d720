"""From a tree to a checked value: pydantic's complaints in words for the person who wrote the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fleet.config.loading.sourced_value import SourcedValue
from fleet.config.schema.introspection import Shape, shape_at
from fleet.config.schema.problems import ConfigError, Conflicts, Problem, nearest, shown

Model = TypeVar("Model", bound=BaseModel)


def checked(given: SourcedValue, model: type[Model], problems: Sequence[Problem] = ()) -> Model:
    """The value that `given` describes. Raises `ConfigError` with `problems` and everything else that is wrong."""
    found = list(problems)
    try:
        value = model.model_validate(given.plain())
    except ValidationError as error:
        for detail in error.errors():
            path = [str(step) for step in detail["loc"]]
            for below, message in _messages(detail, shape_at(model, detail["loc"])):
                where = path + (below.split(".") if below else [])
                found.append(Problem(".".join(where) or "file", message, _source(given, where)))
    if found:
        raise ConfigError(found)
    return value


def _source(given: SourcedValue, path: Sequence[str]) -> str:
    """The nearest thing around the path that was given (a missing key has no line of its own); empty for defaults."""
    found = (given.source_of(path[:length]) for length in range(len(path), 0, -1))
    return next((source for source in found if source), "")


def _messages(detail: ErrorDetails, shape: Shape) -> list[tuple[str, str]]:
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, Conflicts):
        return list(error.found)
    if isinstance(error, ValueError):
        return [("", str(error))]
    if detail["type"] == "missing":
        return [("", f"is missing: it must be {shape.sentence()}")]
    if detail["input"] is None:
        return [("", f"has no value: it must be {shape.sentence()}; without the line the default holds")]
    return [("", f"must be {shape.sentence()}{_instead(detail['input'], shape)}")]


def _instead(value: Any, shape: Shape) -> str:
    """What was found, if it can be shown: numbers and words for a choice. Other text may be a secret gone astray."""
    if shape.secret or shape.many or shape.model is not None:
        return ""
    if shape.choices and isinstance(value, str):
        return f", not {shown(value)}{nearest(value, shape.choices)}"
    if isinstance(value, int | float):
        return f", not {str(value).lower() if isinstance(value, bool) else _short(value)}"
    return ""


def _short(value: float) -> str:
    try:
        text = str(value)
    except ValueError:  # thousands of digits
        return "such a number"
    return text if len(text) <= 30 else "such a long number"
