"""Learns from every finished request and warm-up what clients ask for and how long loads take; off the hot path."""

from __future__ import annotations

from typing import Final

from actors.cells import FleetCell, ServerCell
from actors.messages import Record
from fleet.endpoints import ENDPOINTS, Kind
from fleet.ids import ModelName, Pair, ServerId
from fleet.loadtimes import size_of

_WELL: Final = "completed"


def learn_from(fleet: FleetCell) -> None:
    """Tell `fleet.demand` and `fleet.loads` of every request that ends from now on."""
    fleet.recorder.listeners.append(lambda record: _learn(fleet, record))


def learn_load(fleet: FleetCell, cell: ServerCell, model: ModelName, seconds: float) -> None:
    """A load (or what looked like one) ended well."""
    fleet.loads.note(Pair(cell.state.id, model), seconds, size_of(cell.state.models.get(model)))


def _learn(fleet: FleetCell, record: Record) -> None:
    """Only from what ended well and is in an inventory: names are the client's to invent, memory is ours."""
    endpoint = ENDPOINTS.get(record.endpoint)
    if record.outcome != _WELL or endpoint is None or endpoint.kind is Kind.SHOW:
        return
    model, cell = ModelName(record.model), fleet.servers.get(ServerId(record.server))
    if cell is None or model not in cell.state.models:
        return
    fleet.demand.note(model, record.runner, embedding=endpoint.embedding)
    loading, whole = record.load_seconds or 0.0, record.total_seconds - record.queue_seconds
    if endpoint.loads and record.chunks <= 1 and record.prompt_tokens is None and record.output_tokens is None:
        loading = whole  # nothing was asked but to load it, and then Ollama tells no times
    else:
        fleet.demand.note_seconds(model, whole - loading)
    learn_load(fleet, cell, model, loading)
