"""Many servers' inventories as the inventory of one Ollama server.

Pure functions over what each server last reported. Reports are untrusted: fields that would crash a client are mended
or left out (`typed_fields`), and so are rows without a name. Rows are otherwise passed on as they came, unknown keys
included. If no server is healthy, the last known inventories of all of them are served instead of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fleet.common import model_names
from fleet.common.ids import ModelName, ServerId
from fleet.protocol import typed_fields
from fleet.protocol.timestamps import seconds

Row = dict[str, object]

_ROWS: Final = 10_000
"""Rows of one server that are looked at."""
_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?![0-9.])")
_UNKNOWN: Final = (0, 0, 0)
"""What a build without a version says of itself, and we when nobody knows; it is no version, and not the lowest."""


@dataclass(frozen=True, slots=True)
class ServerCatalog:
    """What one server last reported: the rows of `/api/tags` and `/api/ps`, and its version."""

    server: ServerId
    healthy: bool
    tags: Sequence[Mapping[str, object]] = ()
    ps: Sequence[Mapping[str, object]] = ()
    version: str | None = None


@dataclass(frozen=True, slots=True)
class DigestConflict:
    """One name that means different things: digest to the servers that hold it."""

    model: ModelName
    holders: dict[str, list[ServerId]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row whose name can be one."""

    model: ModelName
    server: ServerId
    row: Mapping[str, object]


def tags(catalogs: Sequence[ServerCatalog]) -> list[Row]:
    """The rows of `/api/tags`: one per name, the newest one's, with the extra key `servers`; newest first."""
    winners = [_newest(entries) for entries in _by_model(catalogs, "tags").values()]
    return sorted(winners, key=lambda row: -int(seconds(row.get("modified_at"))))


def conflicts(catalogs: Sequence[ServerCatalog]) -> list[DigestConflict]:
    """Names whose digest differs between servers, by name. Rows without a digest say nothing."""
    found = []
    for model, entries in sorted(_by_model(catalogs, "tags").items()):
        holders: dict[str, list[ServerId]] = {}
        for entry in entries:
            digest = entry.row.get("digest")
            if isinstance(digest, str) and digest.strip("0"):
                holders.setdefault(digest.removeprefix("sha256:").lower(), []).append(entry.server)
        if len(holders) > 1:
            found.append(DigestConflict(model, holders))
    return found


def ps(catalogs: Sequence[ServerCatalog]) -> list[Row]:
    """The rows of `/api/ps`: one per name, of the replica that expires last; latest expiry first.

    Extra keys: `server` (whose row it is) and `replicas` (all servers that have the model loaded). Unlike `tags`
    this never reports from servers that are down: what they had loaded is gone.
    """
    rows = []
    for entries in _by_model([catalog for catalog in catalogs if catalog.healthy], "ps").values():
        latest = max(entries, key=lambda entry: seconds(entry.row.get("expires_at")))
        rows.append({**typed_fields.row(latest.row), "server": latest.server, "replicas": _servers(entries)})
    return sorted(rows, key=lambda row: -seconds(row.get("expires_at")))


def version(catalogs: Sequence[ServerCatalog], fallback: str) -> str:
    """The lowest version among healthy servers as plain `x.y.z` (clients split it at the dots), else `fallback`."""
    found = []
    for catalog in _usable(catalogs):
        match = _VERSION.match(catalog.version) if isinstance(catalog.version, str) else None
        if match and (number := (int(match[1]), int(match[2]), int(match[3]))) != _UNKNOWN:
            found.append(number)
    return ".".join(str(part) for part in min(found)) if found else fallback


def v1_models(catalogs: Sequence[ServerCatalog]) -> Row:
    """The answer of `/v1/models`. An empty list is null there, as with Ollama."""
    return {"object": "list", "data": [_v1_row(str(row["name"]), row) for row in tags(catalogs)] or None}


def v1_model(name: str, catalogs: Sequence[ServerCatalog]) -> Row | None:
    """The answer of `/v1/models/{name}`, `id` spelt as asked; None if no server has it."""
    wanted = model_names.canonical(name)
    entries = _by_model(catalogs, "tags").get(wanted) if wanted else None
    return _v1_row(name, _newest(entries)) if entries else None


def _v1_row(name: str, row: Mapping[str, object]) -> Row:
    created = max(0, int(seconds(row.get("modified_at"))))
    return {"id": name, "object": "model", "created": created, "owned_by": model_names.namespace(name)}


def _usable(catalogs: Sequence[ServerCatalog]) -> Sequence[ServerCatalog]:
    """The healthy servers; if there are none, all of them (stale if error)."""
    return [catalog for catalog in catalogs if catalog.healthy] or catalogs


def _by_model(catalogs: Sequence[ServerCatalog], what: str) -> dict[ModelName, list[_Entry]]:
    models: dict[ModelName, list[_Entry]] = {}
    for catalog in _usable(catalogs):
        seen: set[ModelName] = set()
        rows: Iterable[object] = catalog.tags if what == "tags" else catalog.ps
        for _, row in zip(range(_ROWS), rows, strict=False):
            if not isinstance(row, Mapping):
                continue
            model = model_names.canonical(typed_fields.name_of(row))
            if model and model not in seen:  # a server that names a model twice still holds it once
                seen.add(model)
                models.setdefault(model, []).append(_Entry(model, catalog.server, row))
    return models


def _newest(entries: Sequence[_Entry]) -> Row:
    newest = max(entries, key=lambda entry: seconds(entry.row.get("modified_at")))
    return {**typed_fields.row(newest.row), "servers": _servers(entries)}


def _servers(entries: Iterable[_Entry]) -> list[ServerId]:
    return [entry.server for entry in entries]
