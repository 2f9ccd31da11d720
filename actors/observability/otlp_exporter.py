"""Spans on their way to a collector, by OpenTelemetry's own SDK and OTLP over HTTP. Imported only where traces are on.

Headers for the collector (an API key, say), a certificate, compression and resource attributes come from the usual
OTEL_* environment variables, which the SDK reads by itself.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from fleet.config.schema.receivers import Anywhere
from fleet.observability.tracing.spans import Span
from fleet.observability.tracing.trace_context import Parent, Trace
from fleet.security.backend_addresses import AllowedBackends, refused_addresses

_PATH: Final = "/v1/traces"
_TIMEOUT: Final = 5.0
"""Seconds for one delivery, its retries included."""
_LOGGER: Final = "opentelemetry"
_KINDS: Final = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_LONGEST: Final = 300


class _Complaint(logging.Handler):
    """Keeps what the SDK complains about first, in the thread that made this: another fleet may deliver meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if not self.text and record.thread == self._thread:
            self.text = "".join(each if each.isprintable() else " " for each in record.getMessage()[:_LONGEST])


class OtlpExporter:
    """One collector; see `actors.observability.tracing.Exporter`."""

    def __init__(self, endpoint: str, service: str, rules: AllowedBackends | None = None) -> None:
        self._logger = logging.getLogger(_LOGGER)
        if not self._logger.handlers:
            self._logger.addHandler(logging.NullHandler())  # one warning per minute is ours to give
        self._logger.propagate = False  # for good: a delivery that was given up complains when all else is over
        self._host, self._rules = urlsplit(endpoint).hostname or "", rules or Anywhere()
        self._exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=_TIMEOUT)
        about = version("fleet-for-ollama")
        self._resource = Resource.create({"service.name": service, "service.version": about})
        self._scope = InstrumentationScope("fleet", about)

    def send(self, spans: Sequence[tuple[Trace, list[Span]]]) -> str:
        """Deliver the trees; why not, if not. A name that leads to where nobody should be sent gets nothing."""
        if why := refused_addresses(self._host, _addresses(self._host), self._rules):
            return f"the collector {why}"
        made = [span for trace, tree in spans for span in self._made(trace, tree)]
        complaint = _Complaint()
        self._logger.addHandler(complaint)
        try:
            if self._exporter.export(made) is SpanExportResult.SUCCESS:
                return ""
        finally:
            self._logger.removeHandler(complaint)
        return complaint.text or "the collector does not take them"

    def close(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _made(self, trace: Trace, spans: list[Span]) -> Iterator[ReadableSpan]:
        state = _state(trace.parent)
        for span in spans:
            yield ReadableSpan(
                span.name,
                context=_context(trace, span.span_id, state),
                parent=self._parent(trace, span, state),
                resource=self._resource,
                attributes=span.attributes,
                events=[Event(name, timestamp=at) for name, at in span.events],
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR) if span.failed else Status(StatusCode.UNSET),
                start_time=span.start,
                end_time=span.end,
                instrumentation_scope=self._scope,
            )

    @staticmethod
    def _parent(trace: Trace, span: Span, state: TraceState) -> SpanContext | None:
        if span.parent is None:
            return None
        return _context(trace, span.parent, state, remote=span.span_id == trace.root)


def _addresses(host: str) -> list[str]:
    """None if it has no address, or only a proxy knows it."""
    try:
        return [str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def traces_url(endpoint: str) -> str:
    """Where a collector takes spans: `/v1/traces` below what was configured, unless that ends so already."""
    base = endpoint.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def _context(trace: Trace, span_id: int, state: TraceState, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace.trace_id, span_id, remote, TraceFlags(trace.flags), state)


def _state(parent: Parent | None) -> TraceState:
    return TraceState.from_header([parent.state]) if parent is not None and parent.state else TraceState()
