"""Whether admin calls disturb the data plane: the same load with and without a busy operator, in turn."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from bench.disturbance import beside
from bench.measure import Bench, NotMeasured, Running
from bench.scenarios import Closed, Scenario, Streams

PER_SECOND: Final = 10
"""Admin calls; five open dashboards that each ask for two views a second."""

_ROOT: Final = "/api/orchestrator"
_CALLS: Final[Sequence[tuple[str, str, object]]] = (
    ("GET", "/servers", None),
    ("GET", "/queue", None),
    ("GET", "/in-flight", None),
    ("GET", "/metrics", None),
    ("PATCH", "/servers/s1", {"priority": 2}),
    ("GET", "/health", None),
    ("GET", "/circuit-breakers", None),
    ("POST", "/servers/s1/drain", {}),
    ("POST", "/servers/s1/undrain", None),
    ("GET", "/models/status", None),
    ("GET", "/config", None),
    ("PATCH", "/config/retry", {"maxAttempts": 4}),
    ("GET", "/bans", None),
    ("GET", "/logs", None),
    ("GET", "/jobs", None),
)

STREAMS: Final = Scenario("admin", "1,000 live streams beside 10 admin calls a second", "burst", Streams(1000, 500))
SHORT: Final = Scenario("admin", "short answers", "short", Closed(32))


class Operator:
    """Calls the admin API at a steady pace until stopped; counts what did not answer 200."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=10)
        self._stop = threading.Event()
        self.calls = 0
        self.refused: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[Operator]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        for method, path, body in itertools.cycle(_CALLS):
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            due = max(due + 1 / PER_SECOND, time.monotonic())
            self._call(method, path, body)

    def _call(self, method: str, path: str, body: object) -> None:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, _ROOT + path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        answer.read()
        self.calls += 1
        if answer.status != 200:
            self.refused[f"{method} {path} {answer.status}"] = (
                self.refused.get(f"{method} {path} {answer.status}", 0) + 1
            )


def measure(bench: Bench, running: Running) -> Mapping[str, float]:
    """How much longer the slowest hundredth takes with an operator at work, as ratios. Raises NotMeasured."""
    parts = ((STREAMS, ("first_p99_us", "gap_p99_us")), (SHORT, ("p99_us",)))
    return beside.ratios(bench, running, parts, partial(_operated, running))


@contextmanager
def _operated(running: Running) -> Iterator[None]:
    operator = Operator(running.target)
    with operator.at_work():
        yield
    if operator.refused or not operator.calls:
        raise NotMeasured(f"admin calls were refused: {operator.refused}")
