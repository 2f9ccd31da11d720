"""What backends send: heads, chunks, streams, in the pieces that are worst."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.requests.held_responses import error_text
from bench.growth.measure import Case
from fleet.http1.body_framing import Chunked, WireError
from fleet.http1.response_head import HeadReader
from fleet.observability.health_summary.status_text import cleaned
from fleet.protocol.dialects import ANTHROPIC, NATIVE, OPENAI
from fleet.protocol.dialects.base import Dialect
from fleet.protocol.dialects.openai import error_text as openai_error
from fleet.protocol.dialects.text import one_line
from fleet.protocol.ndjson_to_sse import NdjsonToSse

_KIB: Final = 1024


def _dripped(make_reader: Callable[[], Any], take: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        reader = make_reader()
        feed = getattr(reader, take)
        try:
            for at in range(len(data)):
                feed(data[at : at + 1])
        except WireError:
            pass

    return run


def _in_reads(make_reader: Callable[[], Any], take: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        feed = getattr(make_reader(), take)
        try:
            for at in range(0, len(data), 65_536):
                feed(data[at : at + 65_536])
        except WireError:
            pass

    return run


def _tap(dialect: Dialect, unit: bytes, *, stream: bool = True, end: bytes = b"") -> Case:
    def run(data: bytes) -> None:
        tap = dialect.tap(stream=stream)
        for at in range(0, len(data), 65_536):
            tap.feed(data[at : at + 65_536])
        tap.close()

    kind = "stream" if stream else "document"
    name = f"tap, {dialect.name} {kind}, {unit!r}"
    return Case(name, 256 * _KIB, lambda size: unit * (size // len(unit)) + end, run)


def _dripping_tap(dialect: Dialect) -> Case:
    def run(data: bytes) -> None:
        tap = dialect.tap(stream=True)
        for at in range(len(data)):
            tap.feed(data[at : at + 1])

    return Case(f"tap, {dialect.name}, one line byte by byte", 32 * _KIB, lambda size: b"x" * size, run)


_UNITS: Final = (
    b"\n",
    b"x",
    b'{"done":true}\n',
    b'{"error":"',
    b'data: {"usage":{"prompt_tokens":1}}\n\n',
    b"[DONE]\n",
)

CASES: Final = (
    Case(
        "answer head, byte by byte",
        16 * _KIB,
        lambda size: b"HTTP/1.1 200 " + b"x" * size,
        _dripped(HeadReader, "feed"),
    ),
    Case(
        "answer head, interims",
        8 * _KIB,
        lambda size: b"HTTP/1.1 103 \r\n\r\n" * (size // 17),
        _dripped(HeadReader, "feed"),
    ),
    Case("chunks, a line byte by byte", 7 * _KIB, lambda size: b"1;" + b"x" * size, _dripped(Chunked, "decode")),
    Case("chunks, of one byte", 128 * _KIB, lambda size: b"1\r\nx\r\n" * (size // 6), _in_reads(Chunked, "decode")),
    Case("chunks, of odd sizes", 128 * _KIB, lambda size: b"01;a\r\nx\r\n" * (size // 9), _in_reads(Chunked, "decode")),
    Case("ndjson to sse, empty lines", 256 * _KIB, lambda size: b"\n" * size, _in_reads(NdjsonToSse, "feed")),
    Case("ndjson to sse, a line byte by byte", 64 * _KIB, lambda size: b"x" * size, _dripped(NdjsonToSse, "feed")),
    *(_tap(dialect, unit) for dialect in (NATIVE, OPENAI, ANTHROPIC) for unit in _UNITS),
    *(_tap(NATIVE, unit, stream=False, end=b"}") for unit in (b"x", b'"done":false', b"\n")),
    *(_dripping_tap(dialect) for dialect in (NATIVE, OPENAI, ANTHROPIC)),
    Case("error body", 128 * _KIB, lambda size: b'{"error":"' + b'\\"' * (size // 2) + b'"}', error_text),
    Case("error body, brackets", 128 * _KIB, lambda size: b'{"error":' + b"[" * size, error_text),
    Case("error event", 32 * _KIB, lambda size: b'{"error":"' + b'\\"' * (size // 2), openai_error),
    Case("message on one line", 64 * _KIB, lambda size: "\n\x00" * (size // 2), one_line),
    Case("status text, tags", 4 * _KIB, lambda size: "<a" * (size // 2), cleaned),
    Case("status text, brackets", 4 * _KIB, lambda size: "[" * size + "](", cleaned),
)
