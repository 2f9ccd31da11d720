"""Bodies that are not plain JSON, and the lists that heads carry."""

from __future__ import annotations

import contextlib
import random
from typing import Final

import zstandard

from bench.growth.measure import Case
from fleet.common.errors import BadRequest
from fleet.common.model_names import canonical
from fleet.common.steps import finished
from fleet.observability.tracing.trace_context import parent_of, read_state
from fleet.protocol.clean_path import moved
from fleet.protocol.content_encodings import decode_zstd, multipart_model
from fleet.protocol.headers import forwarded_headers
from fleet.security.api_keys import without_keys
from fleet.security.client_address import TrustedProxies
from fleet.security.host_header import is_local
from fleet.security.known_secrets import Secrets
from fleet.security.redaction import is_secret_name, redacted
from web.edge.request_head import BadHead, Heads
from web.ollama_api.inference_call import _wants_events

_KIB: Final = 1024
_FORM: Final = 'multipart/form-data; boundary="' + "-" * 60 + '"'
_PROXIES: Final = TrustedProxies(["10.0.0.0/8"])


def _zstd(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        finished(decode_zstd(body))


def _form(body: bytes) -> None:
    finished(multipart_model(_FORM, body))


def _form_type(kind: str) -> None:
    finished(multipart_model(kind, b"--x\r\n"))


def _head(data: bytes) -> None:
    with contextlib.suppress(BadHead):
        Heads(100).read(data)


def _field(name: bytes, unit: bytes) -> Case:
    def make(size: int) -> list[tuple[bytes, bytes]]:
        return [(name, unit * (size // len(unit)))]

    def run(headers: list[tuple[bytes, bytes]]) -> None:
        forwarded_headers(headers)
        _wants_events(headers)
        parent_of([(b"traceparent", b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01"), *headers])
        _PROXIES.client_in("10.0.0.1", headers)

    return Case(f"head, {name.decode()}: {unit.decode()}...", 32 * _KIB, make, run)


def _lines(unit: bytes) -> Case:
    def make(size: int) -> bytes:
        return b"GET / HTTP/1.1\r\n" + unit * (size // len(unit)) + b"\r\n\r\n"

    return Case(f"head, lines of {unit!r}", 16 * _KIB, make, _head)


def _noise(size: int) -> bytes:
    return zstandard.compress(random.Random(1).randbytes(size))


def _path(unit: str) -> Case:
    return Case(f"path, {unit!r}", 64 * _KIB, lambda size: unit * (size // len(unit)), lambda path: moved("GET", path))


_SECRETS: Final = Secrets([f"key-{n:05d}-{n * 7919 % 99991}" for n in range(2000)], lambda key: None)


def _text(unit: str) -> Case:
    return Case(f"secrets in a text, {unit!r}", 64 * _KIB, lambda size: unit * (size // len(unit)), _SECRETS.cleaned)


CASES: Final = (
    Case("zstd, empty frames", 256 * _KIB, lambda size: zstandard.compress(b"") * (size // 9), _zstd),
    Case("zstd, noise", 8 * _KIB * _KIB, _noise, _zstd),
    Case("form, almost boundaries", _KIB * _KIB, lambda size: (b"\n--" + b"-" * 59 + b"x") * (size // 63), _form),
    Case("form, nothing but dashes", _KIB * _KIB, lambda size: b"-" * size, _form),
    Case("form, boundaries within quotes", 4 * _KIB, lambda size: ';boundary="\\"' * (size // 13), _form_type),
    *(_field(b"accept", unit) for unit in (b"text/event-stream;q=0", b",", b";", b" ")),
    *(_field(b"connection", unit) for unit in (b"a,", b" ")),
    _field(b"tracestate", b"a=b,"),
    _field(b"x-forwarded-for", b"10.0.0.1,"),
    _field(b"x-fleet-hop", b"a,"),
    *(_lines(unit) for unit in (b"a:b\r\n", b"a: ", b"\r\ncontent-length: ", b"\r\ncontent-length:  1 ", b" HTTP/")),
    Case("tracestate, one long", 4 * _KIB, lambda size: [b"a=" + b" " * size], read_state),
    Case("query, pairs", 32 * _KIB, lambda size: b"key=a&" * (size // 6), without_keys),
    Case("host, colons", 32 * _KIB, lambda size: ":" * size, is_local),
    Case("host, brackets", 32 * _KIB, lambda size: "[" * size + "]", is_local),
    Case("model name, slashes", 2 * _KIB, lambda size: "a/" * (size // 2), canonical),
    Case("model name, colons", 2 * _KIB, lambda size: "a:" * (size // 2), canonical),
    Case("redaction, addresses", 64 * _KIB, lambda size: "a://b" * (size // 5), redacted),
    *(_path(unit) for unit in ("/..", "//", "/a/..", "/.", "/\\")),
    *(_text(unit) for unit in ("key-0000", "aaaaaaaa ", "a:" * 8, "http://", "://a", "fleet_aaaa")),
    Case("redaction, a name", 64 * _KIB, lambda size: "aA.-" * (size // 4), is_secret_name),
)
