"""The hot endpoints and what a request to one of them asks for; and Ollama's whole route table, for 404 and 405."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fleet.common import model_names
from fleet.common.errors import BadRequest
from fleet.common.ids import ANY_MODEL, ModelName
from fleet.common.steps import Steps, finished
from fleet.protocol.body_fields import Peek, peek, peeking
from fleet.protocol.call import Headers
from fleet.protocol.content_encodings import ZSTD_LIMIT, decode_zstd, multipart_model
from fleet.protocol.dialects import ANTHROPIC, NATIVE, OPENAI, Dialect
from fleet.protocol.headers import field as header


class EndpointKind(enum.Enum):
    """What an endpoint does."""

    GENERATE = "generate"
    CHAT = "chat"
    EMBED = "embed"
    SHOW = "show"
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    TRANSCRIPTION = "transcription"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One hot endpoint (always POST).

    `streams`: can answer in pieces at all; `stream_default`: does so when the request is silent about it.
    `case_sensitive`: the server does not fold the model's case here. `multipart`: a form instead of JSON.
    `zstd`: the body may be compressed. `loads`: an empty request loads or unloads the model.
    """

    path: str
    dialect: Dialect
    kind: EndpointKind
    streams: bool = True
    stream_default: bool = False
    embedding: bool = False
    case_sensitive: bool = False
    multipart: bool = False
    zstd: bool = False
    loads: bool = False


SHOW: Final = "/api/show"
"""Describes a model; no runner works for it."""
_TABLE: Final = (
    Endpoint("/api/generate", NATIVE, EndpointKind.GENERATE, stream_default=True, loads=True),
    Endpoint("/api/chat", NATIVE, EndpointKind.CHAT, stream_default=True, loads=True),
    Endpoint("/api/embed", NATIVE, EndpointKind.EMBED, streams=False, embedding=True),
    Endpoint("/api/embeddings", NATIVE, EndpointKind.EMBED, streams=False, embedding=True, case_sensitive=True),
    Endpoint(SHOW, NATIVE, EndpointKind.SHOW, streams=False),
    Endpoint("/v1/chat/completions", OPENAI, EndpointKind.CHAT, zstd=True),
    Endpoint("/v1/completions", OPENAI, EndpointKind.COMPLETION, zstd=True),
    Endpoint("/v1/embeddings", OPENAI, EndpointKind.EMBED, streams=False, embedding=True, zstd=True),
    Endpoint("/v1/responses", OPENAI, EndpointKind.RESPONSES, zstd=True),
    Endpoint("/v1/messages", ANTHROPIC, EndpointKind.MESSAGES, zstd=True),
    Endpoint("/v1/audio/transcriptions", OPENAI, EndpointKind.TRANSCRIPTION, streams=False, multipart=True),
)
ENDPOINTS: Final[dict[str, Endpoint]] = {endpoint.path: endpoint for endpoint in _TABLE}
"""The hot endpoints by path."""

ALWAYS_THERE: Final = frozenset(("/api/generate", "/api/chat", "/api/embeddings", "/api/show"))
"""Endpoints that no Ollama in use is too old for: "page not found" there comes from something before it."""

PINNABLE: Final = (
    "/api/generate",
    "/api/chat",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
)
"""Endpoints that also exist as `path--server`, for one server and no other."""

# A redirect repeats the path in a header field.
_PLAIN = re.compile(r"[!-~]+")
_GET, _HEAD_GET, _POST = ("GET",), ("HEAD", "GET"), ("POST",)
_ROUTES: Final[dict[str, tuple[str, ...]]] = {
    "/": _HEAD_GET,
    "/api/version": _HEAD_GET,
    "/api/status": _GET,
    "/api/tags": _HEAD_GET,
    "/api/ps": _GET,
    "/api/pull": _POST,
    "/api/push": _POST,
    "/api/create": _POST,
    "/api/copy": _POST,
    "/api/delete": ("DELETE",),
    "/api/me": _POST,
    "/api/signout": _POST,
    "/api/experimental/web_search": _POST,
    "/api/experimental/web_fetch": _POST,
    "/api/experimental/model-recommendations": _GET,
    "/v1/models": _GET,
    **{endpoint.path: _POST for endpoint in _TABLE},
}
_PARAMETER_ROUTES: Final = (
    ("/api/blobs/", ("HEAD", "POST")),
    ("/api/user/keys/", ("DELETE",)),
    ("/v1/models/", _GET),
)
_PARAMETERS: Final = {"/api/blobs/": ":digest", "/api/user/keys/": ":key", "/v1/models/": ":model"}


@dataclass(slots=True)
class Understood:
    """What a request to a hot endpoint asks for.

    `model` is canonical, or `ANY_MODEL` when the request names none that could exist: any server can say so in
    Ollama's words. `asked_model` is the client's own spelling. `is_unload`: no prompt, and `keep_alive` is 0;
    `unloads`: it is 0, whatever else is asked for.
    `runner`: the options that decide whether a loaded runner fits, None if there are none.
    """

    model: ModelName = ANY_MODEL
    asked_model: str = ""
    stream: bool = False
    is_unload: bool = False
    unloads: bool = False
    cloud: bool = False
    embedding: bool = False
    runner: Mapping[str, object] | None = None


def understand(endpoint: Endpoint, body: bytes, headers: Headers, decoded_limit: int = ZSTD_LIMIT) -> Understood:
    """Work out what a hot request wants, without changing it; at one go, so for short bodies.

    Whatever cannot be read is left to a server to refuse (`ANY_MODEL`); only a compressed body over `decoded_limit`
    bytes raises (`TooLarge`).
    """
    if is_compressed(endpoint, headers):
        try:
            return finished(understanding(endpoint, finished(decode_zstd(body, decoded_limit)), headers))
        except BadRequest:
            body = b""
    return finished(understanding(endpoint, body, headers)) if endpoint.multipart else _seen(endpoint, peek(body))


def understanding(endpoint: Endpoint, plain: bytes | bytearray, headers: Headers) -> Steps[Understood]:
    """The same in steps, for bodies of any length, which have been decompressed already."""
    if not endpoint.multipart:
        return _seen(endpoint, (yield from peeking(plain)))
    content_type = (header(headers, b"content-type") or b"").decode("latin-1")
    model = yield from multipart_model(content_type, plain)
    return _understood(endpoint, Peek(), model or "")


def is_compressed(endpoint: Endpoint, headers: Headers) -> bool:
    """Whether a body is compressed in the one way Ollama reads."""
    return endpoint.zstd and (header(headers, b"content-encoding") or b"").lower() == b"zstd"


def _seen(endpoint: Endpoint, seen: Peek) -> Understood:
    if not seen.readable:
        return Understood(embedding=endpoint.embedding, stream=endpoint.stream_default)
    return _understood(endpoint, seen, seen.asked if endpoint.kind is EndpointKind.SHOW else seen.model or "")


def known_methods(path: str) -> tuple[str, ...] | None:
    """The methods Ollama has for a path, in the order of its Allow header; None if the path is unknown (404).

    Paths are case-sensitive; a trailing slash makes another path (see `redirect`).
    """
    methods = _ROUTES.get(path)
    if methods is not None:
        return methods
    for prefix, methods in _PARAMETER_ROUTES:
        if path.startswith(prefix) and len(path) > len(prefix) and "/" not in path[len(prefix) :]:
            return methods
    return None


def rule_of(method: str, path: str) -> str | None:
    """Ollama's route for a path, with the parameter's name for its value; None if it has none for this method."""
    if method not in (known_methods(path) or ()):
        return None
    if path in _ROUTES:
        return path
    return next(prefix + name for prefix, name in _PARAMETERS.items() if path.startswith(prefix))


def redirect(method: str, path: str) -> tuple[int, str] | None:
    """Where Ollama sends a request with one slash too many: 301 for GET, 307 otherwise, and the right path."""
    shorter = path.removesuffix("/")
    if (
        not shorter.strip("/")
        or shorter == path
        or not _PLAIN.fullmatch(path)
        or known_methods(path) is not None
        or method not in (known_methods(shorter) or ())
    ):
        return None
    return (301 if method == "GET" else 307), shorter


def _understood(endpoint: Endpoint, seen: Peek, asked: str) -> Understood:
    load = endpoint.loads and (seen.prompt_empty if endpoint.kind is EndpointKind.GENERATE else seen.messages_empty)
    stream = endpoint.stream_default if seen.stream is None else seen.stream
    name = model_names.parse(asked)
    return Understood(
        model=model_names.canonical(asked),
        asked_model=asked,
        # Ollama answers a load with one plain object, whatever `stream` says.
        stream=endpoint.streams and stream and not load,
        is_unload=load and seen.keep_alive == 0,
        unloads=endpoint.dialect is NATIVE and seen.keep_alive == 0,
        cloud=name is not None and name.cloud,
        embedding=endpoint.embedding,
        runner=_runner(endpoint, seen),
    )


def _runner(endpoint: Endpoint, seen: Peek) -> Mapping[str, object] | None:
    """Only Ollama's own routes take runner options, and `shift` only where text is generated."""
    if endpoint.dialect is not NATIVE:
        return None
    return (seen.runner_options() if endpoint.loads else seen.options) or None
