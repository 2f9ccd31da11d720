"""What of a value may stand in the audit log: small, and without anything that looks like a secret."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from fleet.security.api_keys import PREFIX

REDACTED: Final = "***REDACTED***"
CUT: Final = "..."
MOST_VALUES: Final = 200
"""Values of one change that are kept, all levels together."""
_LONGEST: Final = 200
_DEEPEST: Final = 5
_NAMES: Final = ("key", "token", "secret", "password", "passwd", "authorization", "credential", "cookie", "sha256")
_HARMLESS: Final = frozenset(("require_api_key", "keys_file", "max_tokens", "tokens", "tokens_per_second"))
_PATTERNS: Final = (
    (re.compile(rf"\b{PREFIX}[A-Za-z0-9_-]{{20,}}"), REDACTED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[!-~]+"), rf"\1 {REDACTED}"),
    (re.compile(r"(?<=://)[^/@\s]*@"), f"{REDACTED}@"),
    (re.compile(r"(://[^\s?#]*)\?[^\s#]*"), rf"\1?{REDACTED}"),
)


def redacted(value: object, clean: Callable[[str], str] = str) -> Any:
    """A value as plain JSON: secrets replaced, long texts cut, big or deep things cut short.

    `clean` takes out of a text what is secret whatever it looks like (see `fleet.security.known_secrets`).
    """
    return _Redaction(clean).of(value, 0)


def is_secret_name(name: str) -> bool:
    """Whether what is called so, or lies below something called so, is a secret; to be on the safe side."""
    folded = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    return any(word in step for step in folded.split(".") if step not in _HARMLESS for word in _NAMES)


class _Redaction:
    """One value's worth."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean
        self._left = MOST_VALUES

    def of(self, value: object, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            return CUT
        match value:
            case enum.Enum():
                return value.name.lower()
            case None | bool() | int() | float():
                return value
            case str():
                return self._text(value)
            case SecretStr():
                return REDACTED
            case BaseModel():
                fields = type(value).model_fields
                return self._mapping(((name, getattr(value, name)) for name in fields), depth)
            case Mapping():
                return self._mapping(value.items(), depth)
            case list() | tuple() | set() | frozenset():
                return self._list(value, depth)
        return type(value).__name__

    def _mapping(self, items: Iterable[tuple[object, object]], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if self._left <= 0:
                found[CUT] = CUT
                break
            name = self._text(str(key))
            hidden = is_secret_name(str(key)) and value not in (None, "", (), [], True, False)
            found[name] = self._hidden(value) if hidden else self.of(value, depth + 1)
        return found

    def _hidden(self, value: object) -> Any:
        """Of keys in a list at least their names and roles may be told."""
        self._left -= 1
        if isinstance(value, list | tuple) and all(isinstance(each, Mapping | BaseModel) for each in value):
            return self._list(value, 1)
        return REDACTED

    def _list(self, values: Iterable[object], depth: int) -> list[Any]:
        found: list[Any] = []
        for each in values:
            if self._left <= 0:
                found.append(CUT)
                break
            found.append(self.of(each, depth + 1))
        return found

    def _text(self, text: str) -> str:
        shorter = self._clean(text[: 4 * _LONGEST])  # what may be shown is looked at only, and no megabytes
        for pattern, instead in _PATTERNS:
            shorter = pattern.sub(instead, shorter)
        return shorter if len(shorter) <= _LONGEST else shorter[:_LONGEST] + CUT
