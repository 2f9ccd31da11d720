"""An OTLP collector on the loopback address: takes what exporters post, decodes it, keeps the spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

_KINDS = {
    Message.SPAN_KIND_SERVER: "server",
    Message.SPAN_KIND_CLIENT: "client",
    Message.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(slots=True)
class Got:
    """One span as it arrived. Ids in hexadecimal, nanoseconds since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    failed: bool
    state: str
    attributes: dict[str, Any]
    events: list[tuple[str, int]]


@dataclass
class Collector:
    """`status` is what it answers; `spans` what it took; `paths` what was posted to."""

    url: str
    status: int = 200
    spans: list[Got] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    def tree(self, trace: str) -> tuple[Got, list[Got]]:
        """The request's own span of a trace, and those below it, by their start."""
        own = [span for span in self.spans if span.trace == trace]
        (root,) = [span for span in own if span.kind == "server"]
        return root, sorted((span for span in own if span is not root), key=lambda span: (span.start, span.end))

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        if self.status != 200:
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_plain(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans.extend(map(_got, scope.spans))


def _got(message: Message) -> Got:
    return Got(
        trace=message.trace_id.hex(),
        id=message.span_id.hex(),
        parent=message.parent_span_id.hex(),
        name=message.name,
        kind=_KINDS[message.kind],
        start=message.start_time_unix_nano,
        end=message.end_time_unix_nano,
        failed=message.status.code == 2,
        state=message.trace_state,
        attributes=_plain(message.attributes),
        events=[(event.name, event.time_unix_nano) for event in message.events],
    )


def _plain(attributes: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    return getattr(value, which) if which else None


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector in a thread of its own, for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.take(self.path, body)
            self.send_response(found.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
