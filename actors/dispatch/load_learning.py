"""Learns from every finished request and warm-up what clients ask for and how long loads take; off the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from actors.state.messages import RequestRecord
from actors.state.servers import ServerCell, Servers
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.models.load_times import COLD, LoadTimes, size_of
from fleet.models.runner_options import LATELY, Demand
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.protocol.endpoints import ENDPOINTS, Endpoint, EndpointKind

_WELL: Final = "completed"


def learn_load(load_times: LoadTimes, cell: ServerCell, model: ModelName, seconds: float) -> None:
    """A load (or what looked like one) ended well."""
    load_times.note(Pair(cell.state.id, model), seconds, size_of(cell.state.models.get(model)))


class LoadLearner:
    """Told of finished requests, batch by batch."""

    def __init__(self, servers: Servers, demand: Demand, load_times: LoadTimes) -> None:
        self._servers = servers
        self._demand = demand
        self._load_times = load_times

    def note(self, batch: RequestBatch[RequestRecord]) -> None:
        """Learn. Of each pair and endpoint only the last few: no more are remembered, and a busy fleet has hundreds."""
        for group in batch.groups:
            model, cell = ModelName(group.model), self._servers.get(ServerId(group.server))
            if cell is None or model not in cell.state.models:
                continue
            for name, records in group.endpoints.items():
                endpoint = ENDPOINTS.get(name)
                if endpoint is not None and endpoint.kind is not EndpointKind.SHOW:
                    self._learn_some(cell, model, endpoint, [each for each in records if each.outcome == _WELL])

    def _learn_some(
        self, cell: ServerCell, model: ModelName, endpoint: Endpoint, well: Sequence[RequestRecord]
    ) -> None:
        for record in well[:-LATELY]:
            if record.load_seconds and record.load_seconds >= COLD:
                learn_load(self._load_times, cell, model, record.load_seconds)
        for record in well[-LATELY:]:
            self._learn(cell, endpoint, record)

    def _learn(self, cell: ServerCell, endpoint: Endpoint, record: RequestRecord) -> None:
        """Of what ended well and is in an inventory: names are the client's to invent, memory is ours."""
        model = ModelName(record.model)
        self._demand.note(model, record.runner, embedding=endpoint.embedding)
        loading, whole = record.load_seconds or 0.0, record.total_seconds - record.queue_seconds
        if endpoint.loads and record.chunks <= 1 and record.prompt_tokens is None and record.output_tokens is None:
            loading = whole  # nothing was asked but to load it, and then Ollama tells no times
        else:
            self._demand.note_seconds(model, whole - loading)
        learn_load(self._load_times, cell, model, loading)
