"""Which servers the fleet has: those of the configuration, and over them what the admin API has changed.

A change by the API holds for as long as the configuration says about that server what it said when the change was
made; an entry of the file that was edited since is newer, and wins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from fleet.config import ServerSpec, normalise_url
from fleet.ids import ServerId

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

    A document that cannot be read, or whose URL is taken by another server, is left out and told.
    """
    found: dict[ServerId, ServerSpec] = {}
    problems: list[str] = []
    listed = {spec.id: spec for spec in base}
    for server, spec in listed.items():
        doc = kept.get(server)
        current = spec if doc is None or not _still_holds(doc, spec) else _read(server, doc, problems, spec)
        _admit(found, current, problems)
    for name, doc in kept.items():
        if name not in listed and doc.get("base") is None:  # else the file listed it once, and was edited
            _admit(found, _read(name, doc, problems, None), problems)
    return tuple(found.values()), problems


def _still_holds(doc: Document, spec: ServerSpec) -> bool:
    return bool(doc.get("base") == fingerprint(spec))


def _read(server: str, doc: Document, problems: list[str], otherwise: ServerSpec | None) -> ServerSpec | None:
    if doc.get("spec") is None:
        return None
    try:
        return ServerSpec.model_validate(doc["spec"])
    except ValidationError:
        problems.append(f"what was kept of server '{server[:64]}' cannot be read")
        return otherwise


def _admit(found: dict[ServerId, ServerSpec], spec: ServerSpec | None, problems: list[str]) -> None:
    if spec is None:
        return
    for other in found.values():
        if other.id == spec.id or normalise_url(other.url) == normalise_url(spec.url):
            problems.append(f"server '{spec.id}' was kept, but '{other.id}' has its id or its URL")
            return
    found[spec.id] = spec
