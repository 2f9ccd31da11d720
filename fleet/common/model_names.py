"""Model names, by Ollama's own rules: `host/namespace/model:tag`, defaults filled in, compared without regard to case.

Two spellings mean the same model exactly when their canonical forms are equal. Everything here is a pure function of
the text; whatever a client sends, nothing is raised.

The simulator has rules of its own (`fleet/simulator/naming.py`): on purpose it shares no code with what it tests.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from fleet.common.ids import ANY_MODEL, ModelName

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

# Longer than any valid name, scheme included; what is longer is not looked at.
_LONGEST: Final = 1024
# What Go's strings.TrimSpace removes (Python's strip() also takes \x1c-\x1f).
_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = _TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


class Name(NamedTuple):
    """A valid name with every part present, in the client's own case."""

    host: str
    namespace: str
    model: str
    tag: str
    cloud: bool

    def short(self) -> str:
        """The shortest spelling that still has a tag: `llama3:latest`, `ns/model:tag`, `host/ns/model:tag`."""
        prefix = ""
        if self.host.lower() != DEFAULT_HOST:
            prefix = f"{self.host}/{self.namespace}/"
        elif self.namespace.lower() != DEFAULT_NAMESPACE:
            prefix = f"{self.namespace}/"
        return f"{prefix}{self.model}:{self.tag}"


@lru_cache(maxsize=4096)
def parse(raw: str) -> Name | None:
    """Read a name as Ollama does; None if Ollama would call it invalid.

    Surrounding spaces are trimmed, `:local` is dropped, `x:cloud` and `x:tag-cloud` are cloud models (and
    `x:tag:cloud` is another spelling of `x:tag-cloud`); both suffixes at once are invalid.
    """
    text = raw.strip(_SPACE) if len(raw) <= _LONGEST else ""
    base, source = _source(text)
    if not base or (source and _source(base)[1]):
        return None
    cloud = source == "cloud"
    if cloud:
        base += "-cloud" if base.rfind(":") > base.rfind("/") else ":cloud"
    return _split(base, cloud)


@lru_cache(maxsize=4096)
def canonical(raw: str) -> ModelName:
    """The one form that stands for all spellings of a model; `ANY_MODEL` if the name is invalid.

    `" Llama3 "` and `registry.ollama.ai/library/llama3:latest` both give `llama3:latest`. Invalid names give
    `ANY_MODEL` because any server can refuse them, in Ollama's own words.
    """
    name = parse(raw)
    return ANY_MODEL if name is None else ModelName(name.short().lower())


def is_valid(raw: str) -> bool:
    """Whether Ollama takes this for a model name (characters, lengths, number of parts; digests are refused)."""
    return parse(raw) is not None


def is_cloud(raw: str) -> bool:
    """Whether the name asks for a model that runs in Ollama's cloud (`x:cloud`, `x:20b-cloud`)."""
    name = parse(raw)
    return name is not None and name.cloud


def display(raw: str) -> str:
    """The short name with its tag and in its own case, as Ollama's `show` writes it; invalid names as they came."""
    name = parse(raw)
    return raw if name is None else name.short()


def namespace(raw: str) -> str:
    """The namespace part, `library` for the official models; empty for an invalid name."""
    name = parse(raw)
    return "" if name is None else name.namespace


def _source(text: str) -> tuple[str, str]:
    """Split off an explicit source: (rest, "cloud" | "local" | "")."""
    head, colon, suffix = text.rpartition(":")
    suffix = suffix.strip(_SPACE)
    word = suffix.lower()
    if not colon:
        return text, ""
    if word in ("cloud", "local"):
        return head, word
    if "/" not in suffix and word.endswith("-cloud"):
        return f"{head}:{suffix[: -len('-cloud')]}", "cloud"
    return text, ""


def _split(text: str, cloud: bool) -> Name | None:
    """Cut from the right, as Ollama does: a part that its separator promises must not be empty."""
    rest, tag = text, DEFAULT_TAG
    if text.rfind(":") > text.rfind("/"):
        rest, _, tag = text.rpartition(":")
    host, space = DEFAULT_HOST, DEFAULT_NAMESPACE
    rest, slash, model = rest.rpartition("/")
    if slash:
        rest, slash, space = rest.rpartition("/")
    if slash:
        scheme, mark, after = rest.partition("://")
        host = (after or DEFAULT_HOST) if mark else scheme
    valid = _HOST.fullmatch(host) and _NAMESPACE.fullmatch(space) and _MODEL.fullmatch(model) and _TAG.fullmatch(tag)
    return Name(host, space, model, tag, cloud) if valid else None
