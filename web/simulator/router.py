"""Routes as Ollama registers them, and what its router answers by itself."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from fleet.simulator import BadDuration, BadOption, Busy, InvalidName, JobFailure
from web.simulator import fault_admin
from web.simulator.engine.errors import BUSY, NO_MEMORY, RUNNER_STOPPED, ApiError
from web.simulator.engine.exchange import SimulatedExchange
from web.simulator.engine.run import RunnerGone
from web.simulator.engine.zstd import decompress
from web.simulator.guard import guarded
from web.simulator.ollama_api import anthropic, audio, blobs, catalog, ollama, openai, responses

Handler = Callable[[SimulatedExchange], Awaitable[None]]

ROUTES: Final[dict[str, dict[str, Handler]]] = {
    "/": {"GET": catalog.root, "HEAD": catalog.root},
    "/api/version": {"GET": catalog.version, "HEAD": catalog.version},
    "/api/status": {"GET": catalog.status},
    "/api/tags": {"GET": catalog.tags, "HEAD": catalog.tags},
    "/api/ps": {"GET": catalog.ps},
    "/api/show": {"POST": catalog.show},
    "/api/copy": {"POST": catalog.copy},
    "/api/delete": {"DELETE": catalog.delete},
    "/api/generate": {"POST": ollama.generate},
    "/api/chat": {"POST": ollama.chat},
    "/api/embed": {"POST": ollama.embed},
    "/api/embeddings": {"POST": ollama.embeddings},
    "/api/pull": {"POST": blobs.pull},
    "/api/push": {"POST": blobs.push},
    "/api/create": {"POST": blobs.create},
    "/v1/chat/completions": {"POST": openai.chat_completions},
    "/v1/completions": {"POST": openai.completions},
    "/v1/embeddings": {"POST": openai.embeddings},
    "/v1/models": {"GET": openai.models},
    "/v1/responses": {"POST": responses.responses},
    "/v1/messages": {"POST": anthropic.messages},
    "/v1/audio/transcriptions": {"POST": audio.transcriptions},
    "/sim/faults": {"POST": fault_admin.set_faults, "GET": fault_admin.state},
    "/sim/state": {"GET": fault_admin.state},
}
_PATTERNS: Final[tuple[tuple[re.Pattern[str], dict[str, Handler]], ...]] = (
    (re.compile(r"/api/blobs/[^/]+"), {"POST": blobs.upload, "HEAD": blobs.head}),
    (re.compile(r"/v1/models/[^/]+"), {"GET": openai.model}),
)
_ALLOW_ORDER: Final = ("HEAD", "GET", "POST", "DELETE")
"""The order in which Ollama registers its first route of each method, which is that of its router's Allow."""
INFERENCE: Final = frozenset(
    {
        "/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/v1/chat/completions", "/v1/completions",
        "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions",
    }
)  # fmt: skip


def is_inference(path: str) -> bool:
    """Whether a model has to work for that path."""
    return path in INFERENCE


def reads_body_itself(method: str, path: str) -> bool:
    """Uploads may be larger than memory: their handler reads piece by piece."""
    return method == "POST" and path.startswith("/api/blobs/")


async def answer(exchange: SimulatedExchange) -> None:
    """Answer one request, faults included. Raises `ConnectionOver` and Trio's stream errors."""
    try:
        await _faults_before_headers(exchange)
        if not await guarded(exchange):
            await _dispatch(exchange)
    except (ApiError, InvalidName, BadOption, BadDuration, Busy, RunnerGone) as error:
        await exchange.fail(*_meaning(error))


def _meaning(error: Exception) -> tuple[int, str]:
    match error:
        case ApiError():
            return error.status, error.text
        case InvalidName():
            return 400, "invalid model name"
        case Busy():
            return 503, BUSY
        case RunnerGone():
            return 500, NO_MEMORY if error.failure is JobFailure.MEMORY else RUNNER_STOPPED
        case BadDuration():
            return 400, str(error)
        case _:
            return 500, str(error)


async def _faults_before_headers(exchange: SimulatedExchange) -> None:
    plan = exchange.plan
    if "reset-before-headers" in plan:
        exchange.break_off()
    if "hang-before-headers" in plan:
        await exchange.hang()
    if "garbage" in plan:
        await exchange.garbage()
    if (fault := plan.get("status")) is not None:
        text = fault.text or (BUSY if fault.count == 503 else f"simulated status {fault.count}")
        raise ApiError(fault.count, text)


def find(path: str) -> dict[str, Handler] | None:
    """The handlers of a path, by method; None if the path is unknown."""
    if path in ROUTES:
        return ROUTES[path]
    return next((methods for pattern, methods in _PATTERNS if pattern.fullmatch(path)), None)


async def _dispatch(exchange: SimulatedExchange) -> None:
    methods = find(exchange.path)
    if methods is None:
        await _unknown(exchange)
    elif (handler := methods.get(exchange.method)) is not None:
        decompress(exchange)
        await handler(exchange)
    else:
        allow = [("Allow", ", ".join(method for method in _ALLOW_ORDER if method in methods))]
        await exchange.reply(405, b"405 method not allowed", "text/plain", allow)


async def _unknown(exchange: SimulatedExchange) -> None:
    short = exchange.path.rstrip("/")
    if short and short != exchange.path and find(short) is not None:
        status = 301 if exchange.method == "GET" else 307
        await exchange.reply(status, b"", "text/html; charset=utf-8", [("Location", short)])
    else:
        await exchange.reply(404, b"404 page not found", "text/plain")
