"""The span tree of one finished request, worked out from what was written down of it. Never a word of text.

`request` (server) holds one `queue` span per wait for a slot and one client span per attempt. Attribute names are
OpenTelemetry's, spelled out here, since the generative ones have not settled yet; `fleet.*` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from fleet.breakers.failure_classes import NO_ERRORS
from fleet.observability.statistics.request_record import RequestAttempt
from fleet.observability.tracing.trace_context import Trace
from fleet.protocol.endpoints import ENDPOINTS, EndpointKind

Value = str | int | float | bool

OPERATIONS: Final = {
    EndpointKind.GENERATE: "text_completion",
    EndpointKind.CHAT: "chat",
    EndpointKind.EMBED: "embeddings",
    EndpointKind.COMPLETION: "text_completion",
    EndpointKind.RESPONSES: "chat",
    EndpointKind.MESSAGES: "chat",
}
"""What OpenTelemetry calls it; what is not here has no name there."""
PROVIDER: Final = "ollama"
FIRST_TOKEN: Final = "first token"
FIRST_BYTE: Final = "first byte"
"""Of an answer in one piece, whose first byte is its last."""
_LONGEST: Final = 256
_SHORT: Final = 1e-4
"""Seconds. What lies between two attempts without anybody having waited is shorter."""


class TracedRequest(Protocol):
    """One finished request; see `actors.state.messages.RequestRecord`."""

    request_id: str
    endpoint: str
    model: str
    outcome: str
    status: int
    attempts: int
    queue_seconds: float
    total_seconds: float
    prompt_tokens: int | None
    output_tokens: int | None
    stream: bool
    began: float

    @property
    def tries(self) -> tuple[RequestAttempt, ...]: ...


@dataclass(slots=True)
class Span:
    """One span. Nanoseconds since 1970; `parent` is None for one that nobody is above of."""

    name: str
    kind: str
    """`server`, `client` or `internal`."""
    span_id: int
    parent: int | None
    start: int
    end: int
    attributes: dict[str, Value] = field(default_factory=dict)
    events: tuple[tuple[str, int], ...] = ()
    failed: bool = False


def tree(done: TracedRequest, trace: Trace, offset: float, addresses: Mapping[str, tuple[str, int]]) -> list[Span]:
    """Its spans, the request's own first. `offset` makes seconds since 1970 of its clock's; `addresses` by server."""
    return [_whole(done, trace, offset), *_queues(done, trace, offset), *_attempts(done, trace, offset, addresses)]


def _whole(done: TracedRequest, trace: Trace, offset: float) -> Span:
    attributes: dict[str, Value] = {
        "http.request.method": trace.method,
        "http.route": done.endpoint,
        "url.path": done.endpoint,
        "fleet.request.id": done.request_id,
        "fleet.dialect": trace.dialect,
        "fleet.outcome": done.outcome,
        "fleet.attempts": done.attempts,
        "fleet.stream": done.stream,
        **_asked(done, trace),
    }
    if done.status:
        attributes["http.response.status_code"] = done.status
    if done.outcome not in NO_ERRORS:
        attributes["error.type"] = done.outcome
    # A refusal that is the client's own doing is no error of the server's, says the convention.
    failed = done.outcome not in NO_ERRORS and not 400 <= done.status < 500
    parent = None if trace.parent is None else trace.parent.span_id
    start, end = _at(done.began, offset), _at(done.began + done.total_seconds, offset)
    name = f"{trace.method} {done.endpoint}"
    return Span(name, "server", trace.root, parent, start, end, attributes, failed=failed)


def _queues(done: TracedRequest, trace: Trace, offset: float) -> Iterator[Span]:
    """One for the first wait, however short it was, and one for each later wait that was one."""
    for number, (start, end) in enumerate(waits(done)):
        if not number or end - start >= _SHORT:
            yield Span("queue", "internal", trace.new_id(), trace.root, _at(start, offset), _at(end, offset))


def waits(done: TracedRequest) -> list[tuple[float, float]]:
    """When it stood in line: before each attempt, and after the last if no server was found for another."""
    found, since = [], done.began
    for each in done.tries:
        found.append((since, max(each.started, since)))
        since = each.ended
    end = done.began + done.total_seconds
    if not done.tries or done.outcome == "client_left":
        found.append((since, max(end, since)))
    elif (left := done.queue_seconds - sum(until - start for start, until in found)) > 0:
        found.append((since, min(since + left, max(end, since))))
    return found


def _attempts(
    done: TracedRequest, trace: Trace, offset: float, addresses: Mapping[str, tuple[str, int]]
) -> Iterator[Span]:
    asked = _asked(done, trace)
    name = f"{asked.get('gen_ai.operation.name', 'attempt')} {asked.get('gen_ai.request.model', '')}".rstrip()
    for number, each in enumerate(done.tries):
        last = number == len(done.tries) - 1
        attributes: dict[str, Value] = {
            "http.request.method": trace.method,
            "fleet.server": each.server,
            "fleet.attempt": number + 1,
            "fleet.outcome": each.outcome,
            **asked,
        }
        if each.server in addresses:
            attributes["server.address"], attributes["server.port"] = addresses[each.server]
        if (status := _status(each, done if last else None)) is not None:
            attributes["http.response.status_code"] = status
        if failed := each.outcome not in NO_ERRORS:
            attributes["error.type"] = each.outcome
        if last and each.first_byte is not None:
            attributes |= _answered(done)
        events = () if each.first_byte is None else ((_first(done), _at(each.first_byte, offset)),)
        span_id = trace.attempts[number] if number < len(trace.attempts) else trace.new_id()
        start, end = _at(each.started, offset), _at(max(each.ended, each.started), offset)
        yield Span(name, "client", span_id, trace.root, start, end, attributes, events, failed)


def _asked(done: TracedRequest, trace: Trace) -> dict[str, Value]:
    endpoint = ENDPOINTS.get(done.endpoint)
    operation = OPERATIONS.get(endpoint.kind) if endpoint is not None else None
    said: dict[str, Value] = {"gen_ai.provider.name": PROVIDER}
    if operation:
        said["gen_ai.operation.name"] = operation
    if model := trace.asked_model or done.model:
        said["gen_ai.request.model"] = bounded(model)
    return said


def _answered(done: TracedRequest) -> dict[str, Value]:
    """Of the attempt whose answer went through."""
    said: dict[str, Value] = {"gen_ai.response.model": bounded(done.model)} if done.model else {}
    if done.prompt_tokens is not None:
        said["gen_ai.usage.input_tokens"] = done.prompt_tokens
    if done.output_tokens is not None:
        said["gen_ai.usage.output_tokens"] = done.output_tokens
    return said


def _status(each: RequestAttempt, done: TracedRequest | None) -> int | None:
    """The backend's; `done` for the last attempt, whose status went on to the client if anything came of it."""
    word, _, number = each.outcome.partition("_")
    if word == "refused" and number.isdigit():
        return int(number)
    return done.status if done is not None and each.first_byte is not None and done.status else None


def _first(done: TracedRequest) -> str:
    return FIRST_TOKEN if done.stream else FIRST_BYTE


def bounded(name: str) -> str:
    """A client's own words, cut, without what could not be written down or would do something to who reads it."""
    return "".join(each if each.isprintable() else "?" for each in name[:_LONGEST])


def _at(moment: float, offset: float) -> int:
    return round((moment + offset) * 1e9)
