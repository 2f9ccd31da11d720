"""Whether what came with a 200 is an answer of this endpoint at all: by its type and first bytes, before any is sent.

A page to log in, nothing, or JSON of something else is what proxies, captive portals and half-dead servers say with a
200. A stream is judged by its first piece, an answer in one piece by all of it, if it is short enough to be held.
"""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from fleet.protocol.call import Headers

Raw = msgspec.Raw
_NONE: Final = Raw()


class _Document(msgspec.Struct, gc=False):
    """The fields by which answers are known, unread."""

    message: Raw = _NONE
    done: Raw = _NONE
    response: Raw = _NONE
    embeddings: Raw = _NONE
    embedding: Raw = _NONE
    choices: Raw = _NONE
    data: Raw = _NONE
    output: Raw = _NONE
    content: Raw = _NONE
    text: Raw = _NONE
    error: Raw = _NONE
    details: Raw = _NONE
    model_info: Raw = _NONE
    modelfile: Raw = _NONE
    template: Raw = _NONE
    license: Raw = _NONE
    capabilities: Raw = _NONE
    status: Raw = _NONE


_decoder: Final = msgspec.json.Decoder(_Document)
_OBJECT, _LIST, _TEXT, _BOOL = b"{", b"[", b'"', b"tf"
_ANY: Final = _OBJECT + _LIST + _TEXT + _BOOL + b"n-0123456789"
_SHAPES: Final[dict[str, dict[str, bytes]]] = {
    "/api/chat": {"message": _OBJECT, "done": _BOOL},
    "/api/generate": {"response": _TEXT, "done": _BOOL},
    "/api/embed": {"embeddings": _LIST + b"n"},
    "/api/embeddings": {"embedding": _LIST + b"n"},
    "/api/show": {
        "details": _OBJECT,
        "model_info": _ANY,
        "modelfile": _ANY,
        "template": _TEXT,
        "license": _TEXT,
        "capabilities": _ANY,
    },
    "/v1/chat/completions": {"choices": _LIST},
    "/v1/completions": {"choices": _LIST},
    "/v1/embeddings": {"data": _LIST},
    "/v1/responses": {"output": _LIST},
    "/v1/messages": {"content": _LIST},
    "/v1/audio/transcriptions": {"text": _TEXT},
}
"""What an answer in one piece has: one of these fields, beginning with one of these bytes.

A description's own words count whatever they are set to: a field of a wrong type is mended later (`typed_fields`), and
is no sign that somebody else has answered. The words that others use too count only with the type of a description.
"""
_SPOKEN: Final = "/v1/audio/transcriptions"
"""May answer with plain text, as the request asks for: with anything that was said, or nothing."""
_PAGES: Final = (b"<!doctype", b"<html")

_RECORD: Final = b'{"model":"'
"""How each record of Ollama's own streams begins."""
_EVENTS: Final = (b"data:", b"event:", b":", b"id:", b"retry:")
_ERROR: Final = re.compile(
    rb"""[ \t\r\n]{0,64}+(?:event:[ ]?error\b|(?:data:)?[ \t\r\n]{0,64}+\{[ \t\r\n]{0,64}+"""
    rb"""(?:"error"[ \t\r\n]{0,64}+:[ \t\r\n]{0,64}+(?!null)|"type"[ ]?:[ ]?"error"))"""
)
"""How an error begins, whoever wrote it: with blanks or without."""
_STREAMS: Final = frozenset((b"application/x-ndjson", b"text/event-stream"))
BLANK: Final = b" \t\r\n\xef\xbb\xbf"
"""What may stand before an answer: blanks, a byte order mark."""


def media_of(headers: Headers) -> bytes:
    """The media type among header fields (names in lower case), without its parameters; empty if there is none."""
    for name, value in headers:
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""


def is_error(begin: bytes) -> bool:
    """Whether the body of a 200 begins with an error: nothing was done, and another server may do it."""
    return _ERROR.match(begin) is not None


def strange_stream(path: str, media: bytes, begin: bytes, *, native: bool, complete: bool) -> str:
    """What is wrong with the first piece of a stream; empty if nothing is. `native`: NDJSON instead of events."""
    usual = (
        begin.startswith(_RECORD) and (not complete or begin.endswith(b"\n")) if native else begin.startswith(_EVENTS)
    )
    if usual and b"html" not in media:
        return ""
    begin = begin.lstrip(BLANK)
    if not begin and not complete:
        return ""  # a keep-alive, or half a byte order mark: nothing to judge by yet
    if fault := _no_text(media, begin):
        return fault
    if begin.startswith(b"{"):
        return _strange_beginning(path, begin, native=native, complete=complete)
    if not native and (begin.startswith(_EVENTS) or any(mark.startswith(begin) for mark in _EVENTS)):
        return ""
    return "no JSON" if native else "neither events nor JSON"


def _strange_beginning(path: str, begin: bytes, *, native: bool, complete: bool) -> str:
    """Of a stream that begins with JSON: its first record if that is there, or all of it if that is one document."""
    line, end, _ = begin.partition(b"\n")
    fault = _strange_record(path, line) if native and end else ""
    if complete and (fault or not (native and end)):
        return _strange_record(path, begin)
    return fault


def strange_document(path: str, media: bytes, body: bytes, *, complete: bool) -> str:
    """What is wrong with an answer in one piece, or with its beginning if it is not `complete`; empty: nothing."""
    begin = body.lstrip(BLANK)
    if path == _SPOKEN and media and b"json" not in media and b"html" not in media:
        return "a web page" if begin[:9].lower().startswith(_PAGES) else ""
    if not begin and not complete:
        return ""  # blanks, to keep the connection alive
    if fault := _no_text(media, begin):
        return fault
    if not complete:
        return ""
    if media in _STREAMS:  # though nobody asked for one
        return strange_stream(path, media, body, native=media != b"text/event-stream", complete=complete)
    if not media and begin[:1] not in b"{[":
        return ""  # it does not say what it is, and neither can we
    return _strange_record(path, begin)


def _no_text(media: bytes, begin: bytes) -> str:
    if not begin:
        return "nothing"
    return "a web page" if b"html" in media or begin.startswith(b"<") else ""


def _strange_record(path: str, record: bytes) -> str:
    try:
        found = _fields_of(record)
    except (ValueError, RecursionError):
        return "no JSON object, or half of one"
    for name, begins in _SHAPES.get(path, {}).items():
        value = getattr(found, name)
        if (first := memoryview(value)[:1]) and first[0] in begins:
            return ""
    return (
        "" if path not in _SHAPES or bytes(memoryview(found.error)[:1]) not in (b"", b"n") else "JSON of something else"
    )


def _fields_of(record: bytes) -> _Document:
    """Raises ValueError, RecursionError for what is no JSON object, even to a generous reader.

    Servers in Python write infinities and halves of surrogate pairs, others the bytes of half a character: their
    clients read that, so it is not for us to refuse.
    """
    try:
        return _decoder.decode(record)
    except msgspec.DecodeError:
        value = json.loads(record.decode("utf-8", "replace"), strict=False)
    if not isinstance(value, dict):
        raise ValueError("no object")
    known = {name: value[name] for name in _Document.__struct_fields__ if name in value}
    kinds = {name: each if each is None else type(each)() for name, each in known.items()}
    return _decoder.decode(json.dumps(kinds))


def ended(tail: bytes) -> bool:
    """Whether an event stream that never said so by its own end mark has told all the same that it is over."""
    finish = tail.rfind(b'"finish_reason":')
    return b"response.failed" in tail or (finish >= 0 and tail[finish + 16 :].lstrip()[:1] == b'"')
