"""YAML (and so JSON) text as a tree with line numbers: no tags, no duplicate keys, no bombs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fleet.config.loading.sourced_value import DEEPEST, SourcedValue, from_python, scalar
from fleet.config.schema.problems import ConfigError, Problem, shown

LONGEST_TEXT: Final = 2**20
MOST_NODES: Final = 50_000
TOO_MUCH: Final = "is nested too deeply or holds too many values"
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Refused(Exception):
    """Stops reading; carries a sentence and a line, counted from 0."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message, self.line = message, line


def read_text(text: str, source: str, *, loader: Any = LOADER) -> SourcedValue:
    """The tree of a configuration file. Raises `ConfigError`; its messages never quote a value."""
    if len(text) > LONGEST_TEXT:
        raise _error(f"is longer than {LONGEST_TEXT} characters: surely not a configuration", source)
    try:
        _guard(yaml.parse(text, Loader=loader))
        node = yaml.compose(text, Loader=loader)
        return SourcedValue({}, source) if node is None else _document(node, source)
    except _Refused as refused:
        raise _error(refused.message, f"{source}:{refused.line + 1}") from None
    except yaml.MarkedYAMLError as error:
        raise _invalid(error, source) from None
    except (yaml.YAMLError, ValueError):
        raise _error("is no valid YAML: it contains characters that no text file has", source) from None


def read_json(text: str, source: str) -> SourcedValue:
    """The tree of a file that claims to be JSON; if it is not, it is read as YAML, which says in which line.

    Raises `ConfigError`; its messages never quote a value.
    """
    if len(text) > LONGEST_TEXT:
        raise _error(f"is longer than {LONGEST_TEXT} characters: surely not a configuration", source)
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except _Refused as refused:
        raise _error(refused.message, source) from None
    except (ValueError, RecursionError):
        return read_text(text, source)
    if text.count(",") > MOST_NODES:
        raise _error(TOO_MUCH, source)
    if not isinstance(value, dict):
        raise _error("must hold an object with sections such as `server`", source)
    return from_python(value, source)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise _Refused(f"says {shown(next(name for name, count in times.items() if count > 1))} twice", 0)
    return found


def _error(message: str, source: str) -> ConfigError:
    line = message.replace("\n", " ")
    return ConfigError([Problem("file", line, source)])


def _invalid(error: yaml.MarkedYAMLError, source: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    what = ", ".join(part for part in (error.context, error.problem) if part)
    # PyYAML quotes names from the text; a single character helps, a longer piece may be part of a secret.
    what = re.sub(r"'[^']{2,}'", "(...)", what)
    return _error(f"is no valid YAML: {what}", f"{source}:{mark.line + 1}" if mark else source)


def _guard(events: Iterable[Any]) -> None:
    """Reads the flat event stream first: what is refused here never becomes a tree or a recursion.

    An alias counts as everything it stands for, so that a few lines cannot stand for millions of values.
    """
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        line = event.start_mark.line
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes[anchor or ""] = total - before
        elif isinstance(event, yaml.AliasEvent):
            # Also how a loop looks: what is still open has no size yet.
            if event.anchor not in sizes:
                raise _Refused("holds an alias (*) to nothing before it: quote text that begins with *", line)
            total += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            total += 1
            _no_tag(event, line)
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, total - 1))
            elif event.anchor:
                sizes[event.anchor] = 1
        if len(opened) > DEEPEST or total > MOST_NODES:
            raise _Refused(TOO_MUCH, line)


def _no_tag(event: Any, line: int) -> None:
    if event.tag is not None:
        raise _Refused("holds a tag (!): write the value in quotes if it is meant as text", line)


def _document(node: Node, source: str) -> SourcedValue:
    found = _tree(node, source, node.start_mark.line, 0)
    if isinstance(found.value, dict):
        return found
    if found.value is None:
        return SourcedValue({}, source)
    raise _Refused("must hold sections such as `server:`, with their keys indented below", node.start_mark.line)


def _tree(node: Node, source: str, line: int, depth: int) -> SourcedValue:
    where = f"{source}:{line + 1}"
    if depth > DEEPEST:  # aliases within aliases pile up depth that the event stream does not show
        raise _Refused(TOO_MUCH, line)
    if isinstance(node, MappingNode):
        return SourcedValue(_mapping(node, source, depth), where)
    if isinstance(node, SequenceNode):
        return SourcedValue([_tree(child, source, child.start_mark.line, depth + 1) for child in node.value], where)
    # Plain scalars have no style; quoted ones and blocks are text whatever they look like.
    quoted = isinstance(node, ScalarNode) and node.style
    return SourcedValue(node.value, where, node.value) if quoted else scalar(node.value, where)


def _mapping(node: MappingNode, source: str, depth: int) -> dict[str, SourcedValue]:
    found: dict[str, SourcedValue] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line
        if not isinstance(key, ScalarNode):
            raise _Refused("holds a key that is not a simple word", line)
        if key.value in found:
            raise _Refused(f"says {shown(key.value)} twice, first in line {lines[key.value] + 1}", line)
        lines[key.value] = line
        found[key.value] = _tree(value, source, line, depth + 1)
    return found
