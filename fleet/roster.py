"""Which servers the fleet has: those of the configuration, and over them what the admin API has changed.

A change by the API holds for as long as the configuration says about that server what it said when the change was
made; an entry of the file that was edited since is newer, and wins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from fleet.config import ServerSpec, normalise_url

Document = dict[str, Any]


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


def effective(base: Iterable[ServerSpec], kept: Mapping[str, Document]) -> tuple[tuple[ServerSpec, ...], list[str]]:
    """The servers that the fleet shall have, the file's in its order, and what is wrong with the kept documents.

    A document that cannot be read, or whose URL is taken by another server, is left out and told: the file holds.
    """
    problems: list[str] = []
    listed: dict[str, ServerSpec] = {spec.id: spec for spec in base}
    found: dict[str, ServerSpec | None] = {}
    for name, spec in listed.items():
        doc = kept.get(name)
        found[name] = spec if doc is None or not _still_holds(doc, spec) else _read(name, doc, problems, spec)
    for name, doc in kept.items():
        if name not in listed and doc.get("base") is None:  # else the file listed it once, and was edited
            found[name] = _read(name, doc, problems, None)
    while (clash := _clash(found, listed)) is not None:
        loser, other = clash
        problems.append(f"server '{loser}' was kept, but '{other}' has its id or its URL")
        found[loser] = listed.get(loser)
    return tuple(spec for spec in found.values() if spec is not None), problems


def _still_holds(doc: Document, spec: ServerSpec) -> bool:
    return bool(doc.get("base") == fingerprint(spec))


def _read(server: str, doc: Document, problems: list[str], otherwise: ServerSpec | None) -> ServerSpec | None:
    if doc.get("spec") is None:
        return None
    try:
        spec = ServerSpec.model_validate(doc["spec"])
        if spec.id != server:
            raise ValueError("it is another server's")
    except ValueError:
        problems.append(f"what was kept of server '{server[:64]}' cannot be read")
        return otherwise
    return spec


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
