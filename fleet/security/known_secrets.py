"""What is known to be secret, searched for in any text, whatever stands before and behind it.

Plain texts (keys of the configuration, keys of backends) are found as parts of other words, by one expression that is
a tree of them: the time is the text's length, however many there are. Of keys that are kept as digests only the words
of a text can be tried, and the keys that callers have shown lately are known in plain.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, SecretStr

from fleet.common.lru_table import LruTable
from fleet.security.api_keys import LONGEST_KEY, PREFIX

REDACTED: Final = "***REDACTED***"
SHORTEST: Final = 8
"""Characters; a shorter text is a word of any language, and no key of the configuration."""
_SHOWN: Final = 256
"""Keys shown lately that are remembered."""
_DEPTH: Final = 64
"""Letters that secrets may share at their beginning before the tree stops to look for more."""
_LAYERS: Final = 8
"""Times that a text is taken for percent-encoded."""
_OWN: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{20,}}")
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s?#]{1,512}@")
_WORD: Final = re.compile(r"[^\s,;\"'<>()\[\]{}&?#|\\]{8,8192}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_PART: Final = re.compile(r"[^=:@/!.]{8,}")


Find = Callable[[bytes], object]
"""Whose key some bytes are; None if they are nobody's."""


class Secrets:
    """What one configuration must never say: `plain` texts, keys that `find` knows by their digests, and keys shown."""

    def __init__(self, plain: Iterable[str], find: Find = lambda key: None) -> None:
        self._plain = frozenset(plain)
        self._shown: LruTable[str, None] = LruTable(_SHOWN)
        self._find = find
        self._pattern = one_of(self._plain)

    def shown(self, key: str) -> None:
        """Somebody has shown this valid key. The last 256 are remembered, those apart that look like keys of ours."""
        if key in self._shown or len(key) < SHORTEST or _OWN.fullmatch(key) or key in self._plain:
            return
        self._shown.put(key, None)
        self._pattern = one_of([*self._plain, *self._shown])

    def scrubbed(self, text: str) -> str:
        """The text without what is known in plain, what looks like a key of ours, and what logs in within a URL."""
        if PREFIX in text:
            text = _OWN.sub(REDACTED, text)
        if self._pattern is not None:
            text = self._pattern.sub(REDACTED, text)
        return _USERINFO.sub(f"{REDACTED}@", text) if "://" in text else text

    def cleaned(self, text: str) -> str:
        """As `scrubbed`, and without words that are keys: for texts of people, which are rare and short."""
        return _WORD.sub(self._word, self.scrubbed(text))

    def within(self, data: bytes) -> bool:
        """Whether there is a secret in what a client sent, in any of its spellings: plain, percent-encoded, base64."""
        return any(self.cleaned(text) != text for text in _readings(data))

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        if self._find(word.encode()) is not None:
            return REDACTED
        parts = {part for part in _PART.findall(word) if self._find(part.encode()) is not None}
        for part in parts:
            word = word.replace(part, REDACTED)
        return word


def without(data: bytes, key: bytes) -> bytes:
    """What a server said, without the key that it was shown: servers like to repeat a key that they refuse."""
    return data.replace(key, REDACTED.encode()) if key else data


def one_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """An expression that finds any of these texts, the longest first; None if there are none of `SHORTEST` letters."""
    known = sorted({text for text in texts if SHORTEST <= len(text) <= LONGEST_KEY})
    return re.compile(_tree(known, 0)) if known else None


def _tree(texts: Sequence[str], depth: int) -> str:
    """What the (sorted) texts say from a depth on, each beginning written once."""
    if len(texts) == 1:
        return re.escape(texts[0][depth:])
    if depth == _DEPTH:
        return "(?:" + "|".join(re.escape(text[depth:]) for text in reversed(texts)) + ")"
    ends = len(texts[0]) == depth
    groups = groupby(texts[ends:], key=lambda text: text[depth])
    branches = [re.escape(letter) + _tree(list(group), depth + 1) for letter, group in groups]
    return "(?:" + "|".join(branches) + ")" + ("?" if ends else "")


def _readings(data: bytes) -> Iterator[str]:
    """What a piece of a head may mean, whoever reads it."""
    for _ in range(_LAYERS):
        text = data.decode("latin-1")
        yield text
        yield from map(_from_base64, _BASE64.findall(text))
        if b"+" in data:
            yield text.replace("+", " ")
        if b"%" not in data or (further := unquote_to_bytes(data)) == data:
            return
        data = further


def _from_base64(word: str) -> str:
    """What HTTP Basic makes of a word; empty for what is no base64."""
    try:
        bare = word.replace("-", "+").replace("_", "/")
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return ""


def texts_of(value: object) -> Iterator[str]:
    """Every secret text in a configuration or a part of it."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from texts_of(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_of(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from texts_of(each)
