"""Ollama's own API: NDJSON, errors as a single string; and the structured errors of the fleet's own API."""

from __future__ import annotations

from typing import Final

import msgspec

from fleet.common.errors import FleetError
from fleet.common.model_names import display
from fleet.protocol.dialects.base import ErrorBody, Statistics
from fleet.protocol.dialects.stream_taps import DocumentTap, LineTap, number_after
from fleet.protocol.dialects.text import compact, one_line

_JSON: Final = b"application/json; charset=utf-8"
_OBJECT_READERS: Final = ("curl/", "wget/", "wget2/", "python-requests/", "axios/", "postmanruntime/")
"""Tools that the monitoring stack's reference shows its error object with; they print a body or hand it on as it is."""
_AGENT: Final = 32
"""Characters of a User-Agent that are looked at."""
_JSON_WORDS: Final = frozenset(("true", "false", "null", "NaN", "Infinity"))
_ASKED: Final = 512


class Native:
    """The native dialect."""

    name = "native"

    def error(self, error: FleetError, *, structured: bool, request_id: str, timestamp: str) -> ErrorBody:
        """`{"error":"text"}`, or the object with code, message, details, reason and timestamp if `structured`."""
        if not structured:
            return ErrorBody(compact({"error": plain(error.message)}), _JSON)
        body = {
            "code": error.code,
            "message": one_line(error.message),
            "details": one_line(error.details, one_line(error.message)),
            "reason": error.reason,
            "timestamp": timestamp,
        }
        return ErrorBody(compact({"error": body}), _JSON)

    def stream_error(self, error: FleetError, *, request_id: str, sse: bool) -> bytes:
        """Always the string form: an object crashes Ollama's Python client in mid-stream."""
        line = compact({"error": plain(error.message)})
        return b"data: " + line + b"\n\n" if sse else line + b"\n"

    def tap(self, *, stream: bool) -> NativeStream | NativeDocument:
        """A watcher for NDJSON (`stream`) or for one JSON object."""
        return NativeStream() if stream else NativeDocument()


def plain(message: str) -> str:
    """The message as Ollama's clients need it: one line that is not JSON by itself.

    ollama-python parses the text of an error once more, and `"503"` or `"null"` then crash it.
    """
    text = one_line(message)
    if text[0] in '{["-+0123456789' or text in _JSON_WORDS:
        return f"error: {text}"
    return text


def use_structured(mode: str, user_agent: str, asked: str = "") -> bool:
    """Whether a native error is an object rather than a string.

    `mode` is `structured`, `ollama`, or `auto`: the object for whoever asks for it (`asked`, what X-Fleet-Errors says:
    `structured`, or `ollama` for the string) and for the tools that the seed shows, the string for everybody else.
    Programs were written for Ollama, and show an object as `[object Object]`.
    """
    if mode == "auto":
        wanted = asked.strip().lower()
        mode = "structured" if user_agent[:_AGENT].lower().startswith(_OBJECT_READERS) else "ollama"
        if wanted in ("structured", "ollama"):
            mode = wanted
    return mode == "structured"


def missing_model_text(endpoint_path: str, asked: str) -> str:
    """Ollama's own words for an unknown model, which differ from endpoint to endpoint.

    `asked` is the client's spelling; it is cut at 512 characters.
    """
    asked = asked[:_ASKED]
    if endpoint_path in ("/api/embed", "/api/embeddings", "/v1/embeddings"):
        return f"model {_quoted(asked)} not found, try pulling it first" if asked else "model '' not found"
    if endpoint_path == "/api/copy":
        return f"model {_quoted(asked)} not found"
    if endpoint_path == "/api/show" or endpoint_path.startswith("/v1/models"):
        return f"model '{display(asked)}' not found"
    return f"model '{asked}' not found"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Record(msgspec.Struct, gc=False):
    """The fields of a last record that tell something. Durations in nanoseconds."""

    done: bool | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    load_duration: int | None = None
    prompt_eval_duration: int | None = None
    eval_duration: int | None = None
    total_duration: int | None = None


class _ErrorRecord(msgspec.Struct, gc=False):
    error: str


_record = msgspec.json.Decoder(_Record)
_error_record = msgspec.json.Decoder(_ErrorRecord)


class NativeStream(LineTap):
    """Counts NDJSON records and parses only the last one, or one that begins with an error.

    A quotation mark inside a JSON string is escaped, so `"done":true` cannot come from generated text. It may come
    from the arguments of a tool call, hence the parse.
    """

    marks = (b'"done":true', b'{"error":')

    def count(self, lines: bytes) -> int:
        """One record per line."""
        return lines.count(b"\n")

    def line(self, line: bytes, head: bytes, *, marked: bool, complete: bool) -> None:
        """One record; it may be longer than what is kept, because `context` stands before the statistics."""
        self.stats.chunks += 1
        if head.startswith(b'{"error":'):
            self.stats.error = _error_text(line)
        elif marked:
            record = _decode(line) if complete else _from_tail(line)
            if record is not None and (record.done or not complete):
                _note(self.stats, record)


class NativeDocument(DocumentTap):
    """One JSON object: an answer that was not streamed, or embeddings, which have no `done`."""

    marks = (b'"done":false',)

    def line(self, line: bytes, head: bytes, *, marked: bool, complete: bool) -> None:
        """The whole body, or its end."""
        self.stats.chunks = 1
        if head.startswith(b'{"error":'):
            self.stats.error = _error_text(line)
            return
        record = _decode(line) if complete else _from_tail(line)
        if record is not None and record.done is not False and not (marked and not complete):
            _note(self.stats, record)


def _decode(line: bytes) -> _Record | None:
    try:
        return _record.decode(line)
    except (ValueError, RecursionError):
        return None


def _from_tail(line: bytes) -> _Record | None:
    """What the end of a long record still says; None if it was broken off."""
    if not line.rstrip().endswith(b"}"):
        return None
    record = _Record()
    for key in _Record.__struct_fields__[1:]:
        setattr(record, key, number_after(line, b'"' + key.encode("ascii") + b'":'))
    return record


def _note(stats: Statistics, record: _Record) -> None:
    stats.finished = True
    stats.prompt_tokens = _sane(record.prompt_eval_count)
    stats.output_tokens = _sane(record.eval_count)
    for name, nanoseconds in (
        ("load_seconds", record.load_duration),
        ("prompt_seconds", record.prompt_eval_duration),
        ("output_seconds", record.eval_duration),
        ("total_seconds", record.total_duration),
    ):
        if nanoseconds is not None and 0 <= nanoseconds < 2**63:
            setattr(stats, name, nanoseconds / 1e9)


def _error_text(line: bytes) -> str:
    try:
        return one_line(_error_record.decode(line).error)
    except (ValueError, RecursionError):
        return one_line(line[:512].decode("utf-8", "replace"))


def _sane(value: int | None) -> int | None:
    return value if value is not None and 0 <= value < 2**53 else None
