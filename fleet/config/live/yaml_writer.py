"""What a saved file says. A file that is there is edited where it differs, so that its comments stay.

Secrets that came from the environment are never written: a reference stays a reference, and a value that an
environment variable gave directly is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Final

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from fleet.config.loading.layers import PORT_NAMES, at, file_layer, over, without
from fleet.config.loading.sourced_value import SourcedValue, nested
from fleet.config.schema.introspection import Shape, shapes_of, spellings
from fleet.config.schema.model import Config
from fleet.config.schema.problems import ConfigError
from fleet.config.schema.types import ENV_REFERENCE

Plain = dict[str, Any]

WIDE: Final = 4096
PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
WORDS: Final = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
DASHED: Final = re.compile(
    # A key with nothing behind it but a comment, lines with nothing but comments, a dash; nothing is tried twice.
    r"^( *+)[^\s#-](?:[^\n:]++|:(?![ \t]*+(?:#[^\n]*+)?(?:\n|\Z)))*+:[ \t]*+(?:#[^\n]*+)?\n"
    r"(?:[ \t]*+(?:#[^\n]*+)?\n)*+( *+)- ",
    re.MULTILINE,
)
"""A key and the dash of the first element of its list: how this file indents lists."""


@dataclass(slots=True)
class Draft:
    """What a file shall say: plain, under the model's own names. `left_out` are the secrets that must not be in it."""

    says: Plain = field(repr=False)
    left_out: list[str]


def draft(file: SourcedValue, layer: SourcedValue, servers: SourcedValue | None = None) -> Draft:
    """The file's own layer with the admin API's on top; `servers`, if given, replace its servers."""
    given = over(file, _renamed(layer, file))
    if servers is not None:
        given = over(given, SourcedValue({"servers": servers}, servers.source))
    left_out: list[str] = []
    return Draft(_section(given, Config, "", left_out), left_out)


def _renamed(layer: SourcedValue, file: SourcedValue) -> SourcedValue:
    """The port under the one of its two names that the file has already."""
    there = [name for name in PORT_NAMES if file.source_of(name)]
    for name in PORT_NAMES:
        port = at(layer, name)
        if port is not None and len(there) == 1 and there != [name]:
            layer = over(without(layer, name), nested(iter([(there[0], port)]), port.source))
    return layer


def saved(old: str | None, wanted: Draft, env: Mapping[str, str], *, source: str) -> str:
    """The new text of the file `source` that says `wanted`. `old` is its text now; comments in it stay where they can.

    Raises `ConfigError` if `old` is not a configuration of the fleet.
    """
    now = None if old is None else _section(file_layer(old, env, source=source), Config, "", [])
    if source.endswith(".json"):
        return json.dumps(wanted.says, indent=2) + "\n"
    if old is None or now is None:
        return _dumped(_editor(""), _tree(wanted.says))
    if now == wanted.says:
        return old
    edited = _edited(old, now, wanted.says)
    return edited if _says(edited, wanted, env, source) else _dumped(_editor(old), _tree(wanted.says))


# ---- from given to plain


def _section(given: SourcedValue, model: type[BaseModel], path: str, left_out: list[str]) -> Plain:
    shapes = shapes_of(model)
    children = given.value if isinstance(given.value, dict) else {}
    found = {name: _value(child, shapes[name], f"{path}{name}", left_out) for name, child in children.items()}
    return {name: value for name, value in found.items() if value is not _SECRET}


_SECRET: Final = object()


def _value(given: SourcedValue, shape: Shape, path: str, left_out: list[str]) -> Any:
    if isinstance(given.value, list):
        items = [_value(each, shape.item(), f"{path}.{at}", left_out) for at, each in enumerate(given.value)]
        return [item for item in items if item is not _SECRET]
    if isinstance(given.value, dict) and shape.model is not None:
        return _section(given, shape.model, f"{path}.", left_out)
    if shape.secret and given.value is not None:
        if given.raw is not None and given.raw.startswith(ENV_REFERENCE):
            return given.raw
        if given.source.startswith("environment "):
            left_out.append(path)
            return _SECRET
    return given.value


# ---- from plain to YAML


def _editor(text: str) -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = WIDE
    yaml.explicit_start = text.startswith("---")
    found = DASHED.search(text)
    if text == "" or (found is not None and len(found[2]) > len(found[1])):
        yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dumped(yaml: YAML, tree: Any) -> str:
    out = StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _tree(value: Any) -> Any:
    """Plain values as the editor wants them; what could be read as something else gets quotes."""
    if isinstance(value, dict):
        return CommentedMap({key: _tree(child) for key, child in value.items()})
    if isinstance(value, list):
        items = CommentedSeq([_tree(each) for each in value])
        if not any(isinstance(each, dict) for each in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, str) and (not PLAIN.fullmatch(value) or value.lower() in WORDS):
        return DoubleQuotedScalarString(value)
    return value


def _edited(text: str, now: Plain, wanted: Plain) -> str:
    yaml = _editor(text)
    try:
        tree = yaml.load(text)
        if not isinstance(tree, CommentedMap):
            return ""
        _edit(tree, now, wanted, Config, top=True)
        return _dumped(yaml, tree)
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return ""  # it is read more narrowly here than by the fleet: then it is written anew


def _edit(node: CommentedMap, now: Plain, wanted: Plain, model: type[BaseModel], *, top: bool = False) -> None:
    """Make a section say `wanted`, touching nothing that says it already."""
    names, shapes = spellings(model), shapes_of(model)
    present = {names[str(key)]: key for key in node}
    for name in [name for name in present if name not in wanted]:
        del node[present[name]]
    for name, value in _in_the_file_s_words(wanted, present):
        old, key = now.get(name), present.get(name)
        if key is not None and old == value:
            continue
        model_of, inner = shapes[name].model, None if key is None else node[key]
        if model_of is not None and isinstance(value, dict) and isinstance(inner, CommentedMap):
            _edit(inner, old or {}, value, model_of)
        elif model_of is not None and isinstance(value, list) and isinstance(inner, CommentedSeq):
            _edit_list(inner, old or [], value, model_of)
        elif key is not None:
            node[key] = _tree(value)
        elif top:
            node[name] = _tree(value)
        else:  # in front, because the comments behind the last key belong to what follows the section
            node.insert(0, name, _tree(value))


def _in_the_file_s_words(wanted: Plain, present: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in wanted.items() if name in present)
    yield from ((name, value) for name, value in reversed(wanted.items()) if name not in present)


def _edit_list(node: CommentedSeq, now: list[Plain], wanted: list[Plain], model: type[BaseModel]) -> None:
    """Make a list of sections (servers, keys) say `wanted`: element by element where they have the same name."""
    name = next(iter(model.model_fields))
    names = [each.get(name) for each in wanted]
    for index in reversed(range(len(now))):
        if now[index].get(name) not in names:
            del node[index]
    left = [each for each in now if each.get(name) in names]
    for index, value in enumerate(wanted):
        if index >= len(left):
            node.append(_tree(value))
        elif left[index].get(name) == value.get(name) and isinstance(node[index], CommentedMap):
            _edit(node[index], left[index], value, model)
        else:
            node[index] = _tree(value)


def _says(text: str, wanted: Draft, env: Mapping[str, str], source: str) -> bool:
    """Whether a text says what it should: comments are worth much, but not a wrong file."""
    try:
        return bool(text) and _section(file_layer(text, env, source=source), Config, "", []) == wanted.says
    except ConfigError:
        return False
