"""Which servers the fleet has: those of the configuration, and over them what the admin API has changed.

A change by the API holds for as long as the configuration says about that server what it said when the change was
made; an entry of the file that was edited since is newer, and wins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet.config import ConfigError, ServerSpec, normalise_url, parse_server

Document = dict[str, Any]

_LONGEST: Final = 500
"""Characters of what is said of one document."""


def document(spec: ServerSpec | None, base: ServerSpec | None) -> Document | None:
    """What has to be kept of a server: `spec` is how it is now (None: removed), `base` what the file says of it.

    None: nothing, the file says it all. The server's own key is in it: keep it as safe as the file.
    """
    if spec == base:
        return None
    return {"spec": None if spec is None else plain(spec), "base": None if base is None else fingerprint(base)}


def plain(spec: ServerSpec) -> Document:
    """A server as the configuration file would have it, its key included."""
    shown = spec.model_dump(mode="json", exclude={"api_key"})
    if spec.api_key is not None:
        shown["api_key"] = spec.api_key.get_secret_value()
    return shown


def fingerprint(spec: ServerSpec) -> str:
    """Equal for equal entries of the file; says nothing about the key in it."""
    return hashlib.sha256(repr(sorted(plain(spec).items())).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Aside:
    """A kept document that is not used: the problem in one sentence, and what is wrong with it, to mend it."""

    problem: str
    why: str


def effective(base: Iterable[ServerSpec], kept: Mapping[str, Document]) -> tuple[tuple[ServerSpec, ...], list[str]]:
    """The servers that the fleet shall have, the file's in its order, and what is wrong with the kept documents.

    A document that cannot be read, or whose URL is taken by another server, is left out and told: the file holds.
    """
    specs, aside = sorted_out(base, kept)
    return specs, [each.problem for each in aside.values()]


def sorted_out(
    base: Iterable[ServerSpec], kept: Mapping[str, Document], unusable: Callable[[ServerSpec], str] = lambda spec: ""
) -> tuple[tuple[ServerSpec, ...], dict[str, Aside]]:
    """The same, with the documents that were set aside by server. `unusable` says what is wrong with a spec, if so."""
    aside: dict[str, Aside] = {}
    listed: dict[str, ServerSpec] = {spec.id: spec for spec in base}
    found: dict[str, ServerSpec | None] = dict(listed)
    for name, doc in kept.items():
        spec = listed.get(name)
        if _still_holds(doc, spec):  # else the file was edited since
            found[name] = _read(name, doc, spec, unusable, aside)
    while (clash := _clash(found, listed)) is not None:
        loser, other = clash
        problem = f"server '{loser}' was kept, but '{other}' has its id or its URL"
        aside[loser] = Aside(problem, f"url: is the same as that of server '{other}'")
        found[loser] = listed.get(loser)
    return tuple(spec for spec in found.values() if spec is not None), aside


def _still_holds(doc: Document, spec: ServerSpec | None) -> bool:
    said = doc.get("base")
    return said is None if spec is None else bool(said == fingerprint(spec))


def _read(
    server: str,
    doc: Document,
    otherwise: ServerSpec | None,
    unusable: Callable[[ServerSpec], str],
    aside: dict[str, Aside],
) -> ServerSpec | None:
    if doc.get("spec") is None:
        return None
    try:
        spec = parse_server(doc["spec"])
        why = "id: it is another server's" if spec.id != server else unusable(spec)
    except ConfigError as error:
        why = "; ".join(f"{each.path}: {each.message}" for each in error.problems)
    except (AttributeError, TypeError, ValueError):
        why = "it is no description of a server"
    else:
        if not why:
            return spec
    aside[server] = Aside(f"what was kept of server '{server[:64]}' cannot be read", why[:_LONGEST])
    return otherwise


def _clash(found: Mapping[str, ServerSpec | None], listed: Mapping[str, ServerSpec]) -> tuple[str, str] | None:
    """Two servers with equivalent URLs: the one whose spec is not the file's, and the other; None: there are none."""
    owners: dict[str, str] = {}
    for name, spec in found.items():
        if spec is None:
            continue
        owner = owners.setdefault(normalise_url(spec.url), name)
        if owner != name:
            return (owner, name) if listed.get(name) is spec else (name, owner)
    return None
