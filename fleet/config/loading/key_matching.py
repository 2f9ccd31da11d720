"""Brings what was given into the model's own names, and resolves references to the environment.

Complains only about names and references; values are pydantic's business, and `checking` translates its complaints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from fleet.config.loading.server_shorthand import entries
from fleet.config.loading.sourced_value import SourcedValue
from fleet.config.schema.introspection import Shape, leaves, shapes_of, spellings
from fleet.config.schema.model import Config
from fleet.config.schema.problems import Problem, nearest, shown
from fleet.config.schema.servers import ServerSpec
from fleet.config.schema.types import ENV_REFERENCE, STAND_IN

MOST_UNKNOWN: Final = 20


@dataclass(frozen=True, slots=True)
class KeyMatcher:
    """One pass over some layers. `env` answers env:NAME; None refuses such references (a request is not trusted).

    `referred` collects the names that were asked for.
    """

    env: Mapping[str, str] | None
    problems: list[Problem] = field(default_factory=list)
    referred: set[str] = field(default_factory=set)

    def section(self, given: SourcedValue, model: type[BaseModel], path: str = "") -> SourcedValue:
        """The section with every key under the model's own name; an empty section is one without keys."""
        if given.value is None:
            return SourcedValue({}, given.source)
        if not isinstance(given.value, dict):
            return given
        names, shapes = spellings(model), shapes_of(model)
        found: dict[str, SourcedValue] = {}
        for key, child in given.value.items():
            name = names.get(key)
            if name is not None and name not in found:
                found[name] = self._value(child, shapes[name], _join(path, name))
            elif name is not None:
                self._complain(_join(path, name), "is given twice, in two spellings: keep one", child)
        self._unknown(given, model, path)
        return SourcedValue(found, given.source)

    def _unknown(self, given: SourcedValue, model: type[BaseModel], path: str) -> None:
        names = spellings(model)
        strange = [key for key in given.value if key not in names]
        for key in strange[:MOST_UNKNOWN]:
            what = f"unknown key{nearest(key, model.model_fields) or _elsewhere(key, model)}"
            self._complain(_join(path, _printable(key)), what, given.value[key])
        if len(strange) > MOST_UNKNOWN:
            self._complain(path or "file", f"{len(strange) - MOST_UNKNOWN} more unknown keys", given)

    def _value(self, given: SourcedValue, shape: Shape, path: str) -> SourcedValue:
        if shape.many:
            return self._list(given, shape, path)
        if shape.model is not None:
            return self.section(given, shape.model, path)
        return self._text(given, shape, path) if shape.text else given

    def _list(self, given: SourcedValue, shape: Shape, path: str) -> SourcedValue:
        item = shape.item()
        if given.value is None:
            return SourcedValue([], given.source)
        if not isinstance(given.value, list):
            return given
        values = given.value
        if shape.most is not None and len(values) > shape.most:
            self._complain(path, f"must be {shape.sentence()}", given)
            values = values[: shape.most]  # else every one of millions could be a problem of its own
        if shape.model is ServerSpec:
            values = entries(values, lenient=self.env is not None)
        return SourcedValue([self._value(each, item, f"{path}.{at}") for at, each in enumerate(values)], given.source)

    def _text(self, given: SourcedValue, shape: Shape, path: str) -> SourcedValue:
        """Text is taken as written: `id: 007` is "007" and `policy: no` is "no"."""
        value = given.value if given.raw is None or given.value is None else given.raw
        if shape.secret and isinstance(value, str) and value.startswith(ENV_REFERENCE):
            return self._reference(value.removeprefix(ENV_REFERENCE), given, path)
        return SourcedValue(value, given.source)

    def _reference(self, name: str, given: SourcedValue, path: str) -> SourcedValue:
        self.referred.add(name)
        if self.env is None:
            self._complain(path, "env:NAME is possible only in the configuration at start", given)
        elif not self.env.get(name):
            self._complain(path, f"the environment variable {_printable(name)} is not set or empty", given)
        else:
            written = f"{ENV_REFERENCE}{name}"  # what a saved file must say
            return SourcedValue(self.env[name], f"{given.source}, environment {_printable(name)}", written)
        return SourcedValue(STAND_IN, given.source)

    def _complain(self, path: str, message: str, given: SourcedValue) -> None:
        self.problems.append(Problem(path, message, given.source))


def _elsewhere(key: str, model: type[BaseModel]) -> str:
    """A hint for a key in the wrong section, if exactly one other section has it."""
    paths = (
        [path for path, _, _ in leaves(Config()) if path.rpartition(".")[2] == key] if model is not ServerSpec else []
    )
    return f"; did you mean {paths[0]}?" if len(paths) == 1 else ""


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _printable(key: str) -> str:
    return key if key.isidentifier() and key.isascii() and len(key) <= 60 else shown(key)
