"""The tables of docs/configuration.md, made from the model so that they cannot go stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from fleet.config.schema.introspection import Shape, fields
from fleet.config.schema.model import Config

BEGIN: Final = "<!-- tables: begin (generated, do not edit) -->"
END: Final = "<!-- tables: end -->"
HEAD: Final = "| Key | Default | Unit | Allowed | Meaning |\n|---|---|---|---|---|\n"


def reference() -> str:
    """Markdown: one table per section with every key, its default, unit, bounds and meaning."""
    return "\n".join(f"{title}\n\n{HEAD}{rows}" for title, rows in _tables(Config, ""))


def refreshed(document: str) -> str:
    """`document` with the text between the two marks replaced by `reference()`. Raises `ValueError` without marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the marks around the tables are missing")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _tables(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    flat = [(name, info, shape) for name, info, shape in fields(model) if shape.model is None]
    title = f"### `{path}`" if path else "### Top level"
    doc = "" if not path else "\n\n" + (model.__doc__ or "").strip()
    yield title + doc, "".join(_row(name, info, shape) for name, info, shape in flat)
    for name, _, shape in fields(model):
        if shape.model is not None:
            yield from _tables(shape.model, f"{path}.{name}".lstrip(".") + ("[]" if shape.many else ""))


def _row(name: str, info: FieldInfo, shape: Shape) -> str:
    value = info.get_default()
    if isinstance(value, SecretStr):  # what the model itself says is no secret
        value = value.get_secret_value()
    shown = "" if info.is_required() else json.dumps(list(value) if isinstance(value, tuple) else value)
    default = f"`{shown}`" if shown else "required"
    cells = [f"`{name}`", default, shape.unit, _allowed(shape), info.description or ""]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _allowed(shape: Shape) -> str:
    if shape.many:
        each = shape.item()
        return f"{shape.expected()}; each {each.sentence()}"
    kind = "whole, " if shape.base is int else ""
    words = kind + shape.bounds() if shape.low is not None else shape.sentence()
    return f"{words}, or none" if shape.optional else words
