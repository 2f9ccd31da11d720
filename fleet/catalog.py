"""Many servers' inventories as the inventory of one Ollama server.

Pure functions over what each server last reported. Reports are untrusted: rows that would crash a client (no name, a
digest that cannot be cut to 12 characters) are mended or left out. Rows are otherwise passed on as they came, unknown
keys included. If no server is healthy, the last known inventories of all of them are served instead of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from fleet import names
from fleet.ids import ModelName, ServerId

Row = dict[str, object]

_ROWS: Final = 10_000
"""Rows of one server that are looked at."""
_DIGEST: Final = 12
_NO_TIME: Final = "0001-01-01T00:00:00Z"
_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?![0-9.])")
# Go writes up to nine digits of a second, Python reads six; the zone is Z or +hh:mm.
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ServerCatalog:
    """What one server last reported: the rows of `/api/tags` and `/api/ps`, and its version."""

    server: ServerId
    healthy: bool
    tags: Sequence[Mapping[str, object]] = ()
    ps: Sequence[Mapping[str, object]] = ()
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """One name that means different things: digest to the servers that hold it."""

    model: ModelName
    holders: dict[str, list[ServerId]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row that passed inspection."""

    model: ModelName
    server: ServerId
    row: Row


def tags(catalogs: Sequence[ServerCatalog]) -> list[Row]:
    """The rows of `/api/tags`: one per name, the newest one's, with the extra key `servers`; newest first."""
    winners = [_newest(entries) for entries in _by_model(catalogs, "tags").values()]
    return sorted(winners, key=lambda row: -int(_time(row.get("modified_at"))))


def conflicts(catalogs: Sequence[ServerCatalog]) -> list[Conflict]:
    """Names whose digest differs between servers, by name. Rows without a digest say nothing."""
    found = []
    for model, entries in sorted(_by_model(catalogs, "tags").items()):
        holders: dict[str, list[ServerId]] = {}
        for entry in entries:
            digest = entry.row.get("digest")
            if isinstance(digest, str) and digest.strip("0"):
                holders.setdefault(digest.removeprefix("sha256:").lower(), []).append(entry.server)
        if len(holders) > 1:
            found.append(Conflict(model, holders))
    return found


def ps(catalogs: Sequence[ServerCatalog]) -> list[Row]:
    """The rows of `/api/ps`: one per name, of the replica that expires last; latest expiry first.

    Extra keys: `server` (whose row it is) and `replicas` (all servers that have the model loaded). Unlike `tags`
    this never reports from servers that are down: what they had loaded is gone.
    """
    rows = []
    for entries in _by_model([catalog for catalog in catalogs if catalog.healthy], "ps").values():
        latest = max(entries, key=lambda entry: _time(entry.row.get("expires_at")))
        rows.append({**latest.row, "server": latest.server, "replicas": _servers(entries)})
    return sorted(rows, key=lambda row: -_time(row.get("expires_at")))


def version(catalogs: Sequence[ServerCatalog], fallback: str) -> str:
    """The lowest version among healthy servers as plain `x.y.z` (clients split it at the dots), else `fallback`."""
    found = []
    for catalog in _usable(catalogs):
        match = _VERSION.match(catalog.version) if isinstance(catalog.version, str) else None
        if match:
            found.append((int(match[1]), int(match[2]), int(match[3])))
    return ".".join(str(part) for part in min(found)) if found else fallback


def v1_models(catalogs: Sequence[ServerCatalog]) -> Row:
    """The answer of `/v1/models`. An empty list is null there, as with Ollama."""
    return {"object": "list", "data": [_v1_row(str(row["name"]), row) for row in tags(catalogs)] or None}


def v1_model(name: str, catalogs: Sequence[ServerCatalog]) -> Row | None:
    """The answer of `/v1/models/{name}`, `id` spelt as asked; None if no server has it."""
    wanted = names.canonical(name)
    entries = _by_model(catalogs, "tags").get(wanted) if wanted else None
    return _v1_row(name, _newest(entries)) if entries else None


def _v1_row(name: str, row: Mapping[str, object]) -> Row:
    created = max(0, int(_time(row.get("modified_at"))))
    return {"id": name, "object": "model", "created": created, "owned_by": names.namespace(name)}


def _usable(catalogs: Sequence[ServerCatalog]) -> Sequence[ServerCatalog]:
    """The healthy servers; if there are none, all of them (stale if error)."""
    return [catalog for catalog in catalogs if catalog.healthy] or catalogs


def _by_model(catalogs: Sequence[ServerCatalog], what: str) -> dict[ModelName, list[_Entry]]:
    models: dict[ModelName, list[_Entry]] = {}
    for catalog in _usable(catalogs):
        seen: set[ModelName] = set()
        for entry in _entries(catalog, catalog.tags if what == "tags" else catalog.ps):
            if entry.model not in seen:  # a server that names a model twice still holds it once
                seen.add(entry.model)
                models.setdefault(entry.model, []).append(entry)
    return models


def _entries(catalog: ServerCatalog, rows: Iterable[object]) -> Iterator[_Entry]:
    for _, row in zip(range(_ROWS), rows, strict=False):
        if isinstance(row, Mapping) and (model := names.canonical(_name(row))):
            yield _Entry(model, catalog.server, _mended(row))


def _name(row: Mapping[object, object]) -> str:
    """`name`, else `model`: Ollama sends both, old versions only the first."""
    return next((value for key in ("name", "model") if isinstance(value := row.get(key), str) and value), "")


def _mended(row: Mapping[object, object]) -> Row:
    """A copy with the keys clients rely on: both names, and a digest of at least 12 characters (the CLI cuts there)."""
    mended: Row = {str(key): value for key, value in row.items()}
    name = _name(row)
    mended["name"] = name
    if not isinstance(mended.get("model"), str) or not mended["model"]:
        mended["model"] = name
    digest = mended.get("digest")
    mended["digest"] = (digest if isinstance(digest, str) else "").ljust(_DIGEST, "0")
    for key in ("modified_at", "expires_at"):
        if key in mended and _instant(mended[key]) is None:
            mended[key] = _NO_TIME
    return mended


def _newest(entries: Sequence[_Entry]) -> Row:
    newest = max(entries, key=lambda entry: _time(entry.row.get("modified_at")))
    return {**newest.row, "servers": _servers(entries)}


def _servers(entries: Iterable[_Entry]) -> list[ServerId]:
    return [entry.server for entry in entries]


def _time(value: object) -> float:
    """Seconds since 1970; rubbish is the beginning of time."""
    instant = _instant(value)
    return (instant - _EPOCH).total_seconds() if instant else float("-62135596800")


def _instant(value: object) -> datetime | None:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(match[1] + (match[3] or "Z").replace("Z", "+00:00"))
        return moment + timedelta(microseconds=int((match[2] or "0")[:6].ljust(6, "0")))
    except (ValueError, OverflowError):
        return None
