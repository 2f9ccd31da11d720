"""The merged inventories as bytes: made anew only when some server's inventory or health has changed.

At 200 servers with 50 models merging takes tens of milliseconds, for which every stream would wait, and every chat page
asks for the list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from actors.system import System
from fleet.models import merged_catalog
from fleet.models.merged_catalog import ServerCatalog
from fleet.scheduling.server_state import Health

Merge = Callable[[list["ServerCatalog"]], object]


class Listing:
    """One answer, remembered for as long as it is true."""

    def __init__(self, system: System, merge: Merge) -> None:
        self._system = system
        self._merge = merge
        self._seen: list[tuple[Any, ...]] = []
        self._made = b""

    def body(self) -> bytes:
        """The answer of this moment."""
        # What the answer depends on. A server's mapping is another object whenever a probe finds something else.
        states = [cell.state for cell in self._system.servers.values()]
        seen = [(each.models, len(each.models), each.health is Health.HEALTHY, each.id) for each in states]
        if not self._made or not _same(seen, self._seen):
            self._seen, self._made = seen, orjson.dumps(self._merge(self._system.queries.catalogs()))
        return self._made


def tags(system: System) -> Listing:
    """The body of `/api/tags`."""
    return Listing(system, lambda catalogs: {"models": merged_catalog.tags(catalogs)})


def v1_models(system: System) -> Listing:
    """The body of `/v1/models`."""
    return Listing(system, merged_catalog.v1_models)


def _same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    """Whether both speak of the same mappings; these are never looked into."""
    if len(one) != len(other):
        return False
    return all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(one, other, strict=True))
