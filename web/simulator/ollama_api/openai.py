"""OpenAI-compatible routes: chat, completions, embeddings, models."""

from __future__ import annotations

import base64
import struct
from typing import Any

from fleet.simulator import Ask, InvalidName, Stats
from web.simulator.engine.answer_parts import AnswerParts, TokenKind, call_for, parts_of
from web.simulator.engine.errors import ApiError, go_json
from web.simulator.engine.exchange import Headers, SimulatedExchange
from web.simulator.engine.go_json import OPENAI, Shape, read_object
from web.simulator.engine.request_model import find_model, prompt_of, start, stream_answer, whole_answer
from web.simulator.ollama_api.catalog import openai_row
from web.simulator.ollama_api.ollama import embed_texts

JSON = "application/json"


def read_v1(exchange: SimulatedExchange, name: str, shape: Shape = OPENAI) -> tuple[dict[str, Any], str]:
    """The request and its model's name. Raises `ApiError` 400."""
    request = read_object(exchange.body, name=name, empty="EOF", shape=shape)
    model = request.get("model") or ""
    if not model:
        raise ApiError(400, "model is required")
    return request, model


def sampling(request: dict[str, Any]) -> dict[str, Any]:
    """Native options from OpenAI's names; a token limit is met exactly, like `num_predict`."""
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    options = {"num_predict": limit, "seed": request.get("seed"), "temperature": request.get("temperature")}
    return {key: value for key, value in options.items() if value is not None}


async def chat_completions(exchange: SimulatedExchange) -> None:
    """POST /v1/chat/completions."""
    request, name = read_v1(exchange, "ChatCompletionRequest")
    messages = request.get("messages") or []
    if not messages:
        raise ApiError(400, "[] is too short - 'messages'")
    wanted = request.get("response_format") or {}
    as_json = isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")
    await _answer(exchange, request, name, prompt_of(messages), _Chunks(exchange, name, request, chat=True), as_json)


async def completions(exchange: SimulatedExchange) -> None:
    """POST /v1/completions."""
    request, name = read_v1(exchange, "CompletionRequest")
    prompt = str(request.get("prompt") or "")
    await _answer(exchange, request, name, prompt, _Chunks(exchange, name, request, chat=False))


async def _answer(
    exchange: SimulatedExchange, request: dict[str, Any], name: str, prompt: str, chunks: _Chunks, as_json: bool = False
) -> None:
    file = find_model(exchange, name, "completion")
    if thinks(request) and "thinking" not in file.capabilities:
        raise ApiError(400, f'"{name}" does not support thinking')
    ask = Ask(prompt or " ", sampling(request), exchange.host.server.profile.keep_alive, as_json=as_json, held=True)
    with start(exchange, file, ask) as run:
        chunks.parts = parts_of(run.tokens, exchange.host.requests_seen, think=thinks(request), call=call_for(request))
        if request.get("stream"):
            await stream_answer(exchange, run, chunks)
        else:
            _, stats, reason = await whole_answer(run)
            await exchange.reply(200, chunks.whole(run.tokens, stats, reason), JSON)


def thinks(request: dict[str, Any]) -> bool:
    """Whether a chat asks for thoughts, by either of its names for that."""
    given = request.get("reasoning")
    effort = request.get("reasoning_effort") or (given.get("effort") if isinstance(given, dict) else None)
    return bool(effort) and effort != "none"


def sse(value: Any) -> bytes:
    """One unnamed event."""
    return b"data: " + go_json(value) + b"\n\n"


class _Chunks:
    """Events of one OpenAI stream, for chats or for plain completions."""

    content_type = "text/event-stream"
    headers: Headers = ()

    def __init__(self, exchange: SimulatedExchange, name: str, request: dict[str, Any], *, chat: bool) -> None:
        self.parts = AnswerParts()
        self._chat = chat
        self._usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._base = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-sim-{exchange.host.requests_seen}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(exchange.host.wall()),
            "model": name,
            "system_fingerprint": "fp_ollama",
        }

    def token(self, text: str, index: int) -> bytes:
        kind = self.parts.kind(index)
        if kind is TokenKind.CALL:
            return b""
        delta = {"content": "", "reasoning": text} if kind is TokenKind.THOUGHT else {"content": text}
        return self._chunk({"role": "assistant", **delta} if index == 0 else delta, text)

    def _chunk(self, delta: dict[str, Any], text: str = "", reason: str | None = None) -> bytes:
        return sse({**self._base, "choices": [self._choice(delta, text, reason)]})

    def _choice(self, delta: dict[str, Any], text: str, reason: str | None) -> dict[str, Any]:
        content = {"delta": delta} if self._chat else {"text": text}
        return {"index": 0, **content, "finish_reason": reason}

    def final(self, stats: Stats, reason: str) -> bytes:
        parts = [self._chunk({}, reason=self._reason(reason))]
        if self.parts.call is not None:
            parts.insert(0, self._chunk({"role": "assistant", "content": "", "tool_calls": self._calls()}))
        if self._usage:
            parts.append(sse({**self._base, "choices": [], "usage": usage(stats)}))
        return b"".join((*parts, b"data: [DONE]\n\n"))

    def broken(self) -> bytes:
        """One empty chunk without a model, and no end: that is how Ollama does it."""
        return sse({**self._base, "model": "", "choices": [self._choice({"content": ""}, "", None)]})

    def _reason(self, reason: str) -> str:
        return reason if self.parts.call is None else "tool_calls"

    def _calls(self) -> list[Any]:
        if self.parts.call is None:
            return []
        function = {"name": self.parts.call.name, "arguments": self.parts.arguments}
        return [{"id": self.parts.call_id, "index": 0, "type": "function", "function": function}]

    def whole(self, tokens: tuple[str, ...], stats: Stats, reason: str) -> bytes:
        thoughts, text = self.parts.split(tokens)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        message |= {key: value for key, value in (("reasoning", thoughts), ("tool_calls", self._calls())) if value}
        content = {"message": message} if self._chat else {"text": text}
        kind = "chat.completion" if self._chat else "text_completion"
        choice = {"index": 0, **content, "finish_reason": self._reason(reason)}
        return go_json({**self._base, "object": kind, "choices": [choice], "usage": usage(stats)}) + b"\n"


def usage(stats: Stats) -> dict[str, int]:
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.tokens,
        "total_tokens": stats.prompt_tokens + stats.tokens,
    }


async def embeddings(exchange: SimulatedExchange) -> None:
    """POST /v1/embeddings, as floats or as base64 of little-endian float32."""
    request, name = read_v1(exchange, "EmbedRequest")
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "invalid input")
    vectors, stats = await embed_texts(exchange, {}, name, texts)
    shown: list[Any] = list(vectors)
    if request.get("encoding_format") == "base64":
        shown = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "embedding": each, "index": index} for index, each in enumerate(shown)]
    counts = {"prompt_tokens": stats.prompt_tokens, "total_tokens": stats.prompt_tokens}
    body = {"object": "list", "data": data, "model": name, "usage": counts}
    await exchange.reply(200, go_json(body) + b"\n", JSON)


async def models(exchange: SimulatedExchange) -> None:
    """GET /v1/models; `data` is null when there are none."""
    rows = [openai_row(file, file.name) for file in exchange.host.server.shelf]
    await exchange.reply(200, go_json({"object": "list", "data": rows or None}) + b"\n", JSON)


async def model(exchange: SimulatedExchange) -> None:
    """GET /v1/models/:model; the id echoes the path."""
    name = exchange.last_segment
    try:
        file = exchange.host.server.shelf.find(name)
    except InvalidName:
        file = None
    if file is None:
        raise ApiError(404, f"model '{name if ':' in name else name + ':latest'}' not found")
    await exchange.reply(200, go_json(openai_row(file, name)) + b"\n", JSON)
