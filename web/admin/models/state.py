"""How things stand with a model on a server: in memory, being loaded, failed to load. Snapshots; nothing is changed."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import Field

from fleet.common.errors import ModelNotFound
from fleet.common.ids import ANY_MODEL, ModelName, Pair, ServerId
from fleet.common.model_names import canonical, display
from fleet.config.schema.types import Section
from fleet.models.jobs import JobKind, JobState
from fleet.models.load_times import size_of
from fleet.protocol.typed_fields import name_of
from fleet.scheduling.server_state import Health, vram_of
from web.admin.kit.answers import JsonObject

if TYPE_CHECKING:
    from actors.jobs.job import Job
    from actors.state.servers import ServerCell
    from actors.system import System
    from fleet.scheduling.server_state import Row
    from web.admin.kit.routes import AdminRequest


class Presence(enum.Enum):
    """One model on one server. `UNREACHABLE`: the server does not answer probes, so nobody knows."""

    LOADED = "loaded"
    LOADING = "loading"
    NOT_LOADED = "not_loaded"
    FAILED = "failed"
    MISSING = "missing"
    UNREACHABLE = "unreachable"


COUNTS: Final = {
    Presence.LOADED: "loaded_on",
    Presence.LOADING: "loading_on",
    Presence.NOT_LOADED: "not_loaded_on",
    Presence.FAILED: "failed_on",
    Presence.MISSING: "missing_on",
    Presence.UNREACHABLE: "unreachable_on",
}
"""Where the number of servers in each state stands in `CountsJson`."""


class CountsJson(JsonObject, kw_only=True):
    """How many servers are in each state; together they are all servers."""

    total_servers: int
    loaded_on: int
    loading_on: int
    not_loaded_on: int
    failed_on: int
    missing_on: int
    unreachable_on: int


Counts = TypeVar("Counts", bound=CountsJson)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of one model on one server. Seconds, epoch seconds, bytes; `error`: why the last warm-up failed."""

    pair: Pair
    presence: Presence
    load_seconds: float | None
    last_used: float | None
    vram: int
    expires_at: str | None
    context: int | None
    job: Job | None

    @property
    def error(self) -> str | None:
        return self.job.error if self.presence is Presence.FAILED and self.job is not None else None

    @property
    def active(self) -> Job | None:
        """The warm-up under way."""
        return self.job if self.job is not None and not self.job.state.ended else None


class Survey:
    """All sights of one moment: what would be looked up again and again is put in order once. Made by `surveyed`."""

    def __init__(self, system: System) -> None:
        self._statistics, self._clock = system.statistics, system.clock
        self._warm: dict[Pair, Job] = {}
        for job in system.jobs.of(kind=JobKind.WARM):  # the newest first; one that is under way before all that ended
            known = self._warm.setdefault(pair := Pair(job.server, canonical(job.model)), job)
            if known.state.ended and not job.state.ended:
                self._warm[pair] = job
        self._working = _working(system)

    def sight(self, cell: ServerCell, model: ModelName) -> Sight:
        """One model on one server."""
        pair = Pair(cell.state.id, model)
        row = cell.state.resident.get(model, {})
        used = self._statistics.totals.last_used(pair)
        job = self._warm.get(pair)
        return Sight(
            pair=pair,
            presence=self._presence(cell, pair, job, used),
            load_seconds=self._statistics.load_times.last(pair),
            last_used=used,
            vram=vram_of(row),
            expires_at=_short(row.get("expires_at")),
            context=_whole(row.get("context_length")),
            job=job,
        )

    def busy(self, pair: Pair) -> bool:
        """Whether a request for it is open there."""
        return pair in self._working

    def _presence(self, cell: ServerCell, pair: Pair, job: Job | None, used: float | None) -> Presence:
        state, model = cell.state, pair.model
        loads = job is not None and not job.state.ended
        if not (model in state.models or model in state.resident or loads):
            return Presence.MISSING if state.seen else Presence.UNREACHABLE
        if state.health is not Health.HEALTHY:
            return Presence.UNREACHABLE
        answering = self._working.get(pair)
        if model in state.resident or answering:
            return Presence.LOADED
        if loads or answering is not None:  # a request whose server is silent waits for the load, as a rule
            return Presence.LOADING
        return Presence.FAILED if job is not None and self._failed(job, used) else Presence.NOT_LOADED

    def _failed(self, job: Job, used: float | None) -> bool:
        """Whether the last warm-up failed, and no request has ended since."""
        if job.state is not JobState.FAILED or job.ended is None:
            return False
        return used is None or used < self._clock.epoch(job.ended)


def counts(kind: type[Counts], presences: Iterable[Presence], total: int, **more: Any) -> Counts:
    """How many of `total` servers are in each state, as `kind`, whose further fields are `more`.

    Servers that are not among `presences` do not hold the model.
    """
    found = Counter(presences)
    found[Presence.MISSING] += total - found.total()
    counted = {name: found[each] for each, name in COUNTS.items()}
    return kind(total_servers=total, **counted, **more)


# ---- what calls name


class Where(Section):
    """One server, or all of them."""

    server_id: Annotated[str, Field(max_length=64)] | None = Field(None, description="Only this server.")


def server_of(asked: AdminRequest) -> ServerId | None:
    """The server that a body of `Where` names. Raises ServerNotFound."""
    if asked.body.server_id is None:
        return None
    server = ServerId(asked.body.server_id)
    asked.system.cell(server)
    return server


def wanted(system: System, asked: str) -> ModelName:
    """The model of a path, in its canonical form. Raises ModelNotFound if no server knows it, not even in memory."""
    model = canonical(asked)
    states = (cell.state for cell in system.servers.values())
    if model == ANY_MODEL or not any(model in state.models or model in state.resident for state in states):
        raise ModelNotFound(f"model '{asked[:100]}' not found on any server")
    return model


def spellings(system: System) -> dict[ModelName, str]:
    """All models that some server lists or has in memory, as the first of them spells the name; sorted."""
    found: dict[ModelName, str] = {}
    for cell in system.servers.values():
        for rows in (cell.state.models, cell.state.resident):
            for model, row in rows.items():
                if model != ANY_MODEL and model not in found:
                    found[model] = spelt(row, model)
    return dict(sorted(found.items()))


def spelling(system: System, model: ModelName) -> str:
    """The name of one model, as the first server that knows it spells it."""
    for cell in system.servers.values():
        row = cell.state.models.get(model) or cell.state.resident.get(model)
        if row is not None:
            return spelt(row, model)
    return model


def spelt(row: Row, model: ModelName) -> str:
    """The name in a row of /api/tags or /api/ps, always with its tag."""
    return display(name_of(row) or model)


def size_on(cell: ServerCell, model: ModelName) -> int | None:
    """Bytes of the model on this server; None if it does not say."""
    return size_of(cell.state.models.get(model))


async def surveyed(system: System) -> Survey:
    """The sights of now; who has just been served counts. A checkpoint."""
    await system.statistics.request_log.catch_up()
    return Survey(system)


def _working(system: System) -> dict[Pair, bool]:
    """Pairs with open requests: whether one of them is being answered (True), or all wait for the first byte."""
    found: dict[Pair, bool] = {}
    for cell in system.servers.values():
        for lease in cell.leases.values():
            if lease.call.runs and lease.pair.model != ANY_MODEL:
                found[lease.pair] = found.get(lease.pair, False) or lease.first_byte is not None
    return found


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 2**60 else None


def _short(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= 64 else None


def holders(system: System) -> Mapping[ModelName, list[ServerCell]]:
    """Every model with the servers that list it or have it in memory."""
    found: dict[ModelName, list[ServerCell]] = {}
    for cell in system.servers.values():
        for model in {**cell.state.models, **cell.state.resident}:
            if model != ANY_MODEL:
                found.setdefault(model, []).append(cell)
    return found
