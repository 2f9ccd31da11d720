"""What was given, before it is checked: a tree in which every value knows where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

DEEPEST: Final = 20
INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
DECIMAL: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """A value with its source. `raw` is the text it was written as, where a text field must not see a number.

    `value` is a dict or a list of `SourcedValue`, or a scalar. It stays out of `repr`: it may be a secret.
    """

    value: Any = field(repr=False)
    source: str
    raw: str | None = field(default=None, repr=False)

    def plain(self) -> Any:
        """The same as ordinary dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def source_of(self, path: Sequence[str]) -> str:
        """The source of the value at `path`; empty if nothing was given there. Elements inherit their list's."""
        if not path:
            return self.source
        child: SourcedValue | None = None
        if isinstance(self.value, dict):
            child = self.value.get(path[0])
        elif isinstance(self.value, list) and path[0].isdigit() and int(path[0]) < len(self.value):
            child = self.value[int(path[0])]
        return child.source_of(path[1:]) if child else ""


def scalar(text: str, source: str) -> SourcedValue:
    """A plain scalar by the core rules of YAML 1.2.

    PyYAML knows 1.1 only, where `no` is False, `1:30` is 90 and `010` is 8. Here they are text, text and 10; a field
    that wants a truth value still understands yes, no, on and off, because pydantic does.
    """
    if text in SPECIAL:
        return SourcedValue(SPECIAL[text], source, text)
    value: object = text
    if INTEGER.fullmatch(text):
        value = _integer(text)
    elif DECIMAL.fullmatch(text):
        value = float(text)
    return SourcedValue(value, source, text)


def from_python(value: object, source: str, depth: int = 0) -> SourcedValue:
    """Ordinary dicts and lists as a tree. What lies deeper than `DEEPEST` becomes `...`, which no field accepts."""
    if isinstance(value, Mapping | list | tuple) and depth >= DEEPEST:
        return SourcedValue(..., source)
    if isinstance(value, Mapping):
        return SourcedValue({str(key): from_python(child, source, depth + 1) for key, child in value.items()}, source)
    if isinstance(value, list | tuple):
        return SourcedValue([from_python(child, source, depth + 1) for child in value], source)
    return SourcedValue(value, source)


def merged(base: SourcedValue, top: SourcedValue) -> SourcedValue:
    """`top` over `base`: sections are merged key by key, lists and scalars replaced as a whole."""
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    both = dict(base.value)
    for key, child in top.value.items():
        both[key] = merged(both[key], child) if key in both else child
    return SourcedValue(both, top.source)


def nested(entries: Iterator[tuple[Sequence[str], SourcedValue]], source: str) -> SourcedValue:
    """One tree from single values with their paths; a later entry wins."""
    tree = SourcedValue({}, source)
    for path, value in entries:
        for step in reversed(path):
            value = SourcedValue({step: value}, value.source)
        tree = merged(tree, value)
    return tree


def _integer(text: str) -> object:
    try:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    except ValueError:  # Python refuses to read thousands of digits
        return text
