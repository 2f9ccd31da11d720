"""A simulated server on Trio's clock, with its faults and a record of everything it was asked."""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import trio

from fleet.simulator import ModelFile, Profile, Runner, SimServer, Work, parse_models
from web.simulator.engine.faults import FaultBook
from web.simulator.engine.run import JobRun
from web.simulator.engine.streams import reset


@dataclass(slots=True)
class SeenRequest:
    """One request as it arrived. Times are on Trio's clock; `body` is capped at `SimHost.BODY_KEPT` bytes."""

    method: str
    target: str
    path: str
    headers: list[tuple[str, str]]
    at: float
    body: bytes = b""
    body_size: int = 0
    status: int | None = None
    """None until an answer began."""
    ended_at: float | None = None
    client_left: bool = False

    def json(self) -> Any:
        """The body, decoded; raises `ValueError` if it is not JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class SimHost:
    """One simulated server; any number of connections may be served from it (`serve_connection`).

    `active_requests` and `max_active` count inference requests being answered, not health checks.
    """

    BODY_KEPT = 1 << 20

    def __init__(self, server: SimServer, *, id: str = "sim", faults: Iterable[str] = (), seed: int = 0) -> None:
        self.id = id
        self.server = server
        self.faults = FaultBook(random.Random(seed), self.now)
        self.requests: deque[SeenRequest] = deque(maxlen=10_000)
        self.requests_seen = 0
        self.open_connections = 0
        self.active_requests = 0
        self.max_active = 0
        self.blobs: set[str] = set()
        self.streams: set[trio.abc.Stream] = set()
        self._wall_zero: float | None = None
        self.faults.set(*faults)

    def now(self) -> float:
        """Trio's clock, in seconds; before Trio runs, minus infinity."""
        try:
            return trio.current_time()
        except RuntimeError:
            return float("-inf")

    def wall(self) -> float:
        """Seconds since 1970, moving with Trio's clock."""
        if self._wall_zero is None:
            self._wall_zero = time.time() - self.now()
        return self._wall_zero + self.now()

    def begin(self, work: Work) -> JobRun:
        """Submit work. Raises `Busy`. Use as a context manager: leaving the block early gives the work up."""
        return JobRun(self.server, work)

    def began(self) -> None:
        self.active_requests += 1
        self.max_active = max(self.max_active, self.active_requests)

    def ended(self) -> None:
        self.active_requests -= 1

    def reset_connections(self) -> None:
        """Reset every open connection; returns at once, clients see it at their next read or write."""
        for stream in tuple(self.streams):
            reset(stream)

    def seen(self, path: str) -> list[SeenRequest]:
        """The recorded requests for a path, oldest first."""
        return [request for request in self.requests if request.path == path]

    def state(self) -> dict[str, Any]:
        """What `GET /sim/state` shows."""
        now = self.now()
        self.server.advance(now)
        return {
            "id": self.id,
            "simulated": True,
            "faults": self.faults.flags,
            "open_connections": self.open_connections,
            "active_requests": self.active_requests,
            "max_active": self.max_active,
            "requests_seen": self.requests_seen,
            "pending": self.server.pending,
            "loading": self.server.loading.name if self.server.loading else None,
            "loads_begun": self.server.loads_begun,
            "vram_used": self.server.vram_used,
            "loaded": [_runner_state(runner) for runner in self.server.runners.values()],
        }


def _runner_state(runner: Runner) -> dict[str, Any]:
    return {
        "model": runner.file.name,
        "slots": runner.slots,
        "active": len(runner.active),
        "queued": len(runner.queue),
        "num_ctx": runner.context,
    }


def make_host(
    models: str | Iterable[ModelFile] = "llama3:8b:4.7GB",
    profile: Profile | None = None,
    *,
    id: str = "sim",
    faults: Iterable[str] = (),
    seed: int = 0,
) -> SimHost:
    """A host with a server of its own; `models` as `parse_models` reads them. Raises `ValueError`."""
    files = parse_models(models) if isinstance(models, str) else models
    server = SimServer(profile or Profile(), files, random.Random(seed))
    return SimHost(server, id=id, faults=faults, seed=seed)
