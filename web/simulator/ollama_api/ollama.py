"""The native routes that make a model work: generate, chat, embed."""

from __future__ import annotations

from typing import Any

from fleet.simulator import Ask, Stats, embedding, embedding_work, rfc3339, stats_of
from web.simulator.engine.answer_parts import AnswerParts, TokenKind, call_for, parts_of
from web.simulator.engine.errors import RUNNER_BROKE, ApiError, go_json
from web.simulator.engine.exchange import Headers, SimulatedExchange
from web.simulator.engine.go_json import read_object
from web.simulator.engine.request_model import (
    as_json,
    find_model,
    keep_alive,
    prompt_of,
    start,
    stream_answer,
    whole_answer,
    with_faults,
)
from web.simulator.engine.run import JobRun

JSON = "application/json; charset=utf-8"


async def generate(exchange: SimulatedExchange) -> None:
    """POST /api/generate."""
    request = read_object(exchange.body, name="GenerateRequest", empty="missing request body")
    name = request.get("model") or ""
    if not name:
        raise ApiError(404, "model '' not found")
    prompt = request.get("prompt") or ""
    system = request.get("system")
    await _answer(exchange, request, name, f"{system}\n{prompt}" if system and prompt else prompt, "response")


async def chat(exchange: SimulatedExchange) -> None:
    """POST /api/chat."""
    request = read_object(exchange.body, name="ChatRequest", empty="missing request body")
    name = request.get("model") or ""
    if not name:
        raise ApiError(400, "model is required")
    await _answer(exchange, request, name, prompt_of(request.get("messages") or ()), "message")


async def _answer(exchange: SimulatedExchange, request: dict[str, Any], name: str, prompt: str, field: str) -> None:
    stay = keep_alive(exchange, request)
    file = find_model(exchange, name, "completion" if prompt else _any_capability(exchange, name))
    if request.get("think") and "thinking" not in file.capabilities:
        raise ApiError(400, f'"{name}" does not support thinking')
    if request.get("tools") and "tools" not in file.capabilities:
        raise ApiError(400, f"registry.ollama.ai/library/{file.name} does not support tools")
    if not prompt and stay == 0:
        exchange.host.server.unload(file, exchange.host.now())
        await exchange.reply(200, _done(exchange, name, field, {"done_reason": "unload"}), JSON)
        return
    ask = Ask(prompt, request.get("options"), stay, request.get("shift") is not False, as_json(request), held=True)
    with start(exchange, file, ask) as run:
        call = call_for(request) if field == "message" else None
        parts = parts_of(run.tokens, exchange.host.requests_seen, think=bool(request.get("think")), call=call)
        await _deliver(exchange, request, run, _Ndjson(exchange, name, field, parts))


async def _deliver(exchange: SimulatedExchange, request: dict[str, Any], run: JobRun, lines: _Ndjson) -> None:
    if not run.tokens:
        await run.ready()
        await exchange.reply(200, _done(exchange, lines.name, lines.field, {"done_reason": "load"}), JSON)
    elif request.get("stream") is False:
        _, stats, reason = await whole_answer(run)
        await exchange.reply(200, lines.whole(run.tokens, stats, reason), JSON)
    else:
        await stream_answer(exchange, run, lines)


def _any_capability(exchange: SimulatedExchange, name: str) -> str:
    """Loading asks nothing of a model."""
    file = exchange.host.server.shelf.find(name)
    return file.capabilities[0] if file else "completion"


def _said(field: str, text: str = "", thoughts: str = "", calls: list[Any] | None = None) -> dict[str, Any]:
    more: dict[str, Any] = {"thinking": thoughts} if thoughts else {}
    if field == "response":
        return {"response": text, **more}
    return {"message": {"role": "assistant", "content": text, **more, **({"tool_calls": calls} if calls else {})}}


def _done(
    exchange: SimulatedExchange, name: str, field: str, more: dict[str, Any], said: dict[str, Any] | None = None
) -> bytes:
    created = rfc3339(exchange.host.wall())
    return go_json({"model": name, "created_at": created, **(said or _said(field)), "done": True, **more})


class _Ndjson:
    """Lines of a native stream."""

    content_type = "application/x-ndjson"
    headers: Headers = ()

    def __init__(self, exchange: SimulatedExchange, name: str, field: str, parts: AnswerParts) -> None:
        self._exchange = exchange
        self._parts = parts
        self.name = name
        self.field = field

    def token(self, text: str, index: int) -> bytes:
        kind = self._parts.kind(index)
        if kind is TokenKind.CALL:
            return b""
        return self._line(_said(self.field, thoughts=text) if kind is TokenKind.THOUGHT else _said(self.field, text))

    def _line(self, said: dict[str, Any]) -> bytes:
        created = rfc3339(self._exchange.host.wall())
        return go_json({"model": self.name, "created_at": created, **said, "done": False}) + b"\n"

    def final(self, stats: Stats, reason: str) -> bytes:
        called = self._line(_said(self.field, calls=self._calls())) if self._parts.call else b""
        return called + self._object(_said(self.field), stats, reason) + b"\n"

    def whole(self, tokens: tuple[str, ...], stats: Stats, reason: str) -> bytes:
        """The answer of `stream: false`."""
        thoughts, text = self._parts.split(tokens)
        return self._object(_said(self.field, text, thoughts, self._calls()), stats, reason)

    def _object(self, said: dict[str, Any], stats: Stats, reason: str) -> bytes:
        more: dict[str, Any] = {"done_reason": reason if self._parts.call is None else "stop"}
        if self.field == "response":
            more["context"] = [1, 2, 3]
        return _done(self._exchange, self.name, self.field, {**more, **_counts(stats)}, said)

    def _calls(self) -> list[Any]:
        call = self._parts.call
        if call is None:
            return []
        function = {"index": 0, "name": call.name, "arguments": call.arguments}
        return [{"id": self._parts.call_id, "function": function}]

    def broken(self) -> bytes:
        return go_json({"error": RUNNER_BROKE}) + b"\n"


def _counts(stats: Stats) -> dict[str, int]:
    """The numbers of the last line; zeros are left out."""
    counts = {
        "total_duration": stats.total,
        "load_duration": stats.load,
        "prompt_eval_count": stats.prompt_tokens,
        "prompt_eval_duration": stats.prompt_eval,
        "eval_count": stats.tokens,
        "eval_duration": stats.eval,
    }
    return {key: value for key, value in counts.items() if value}


async def embed(exchange: SimulatedExchange) -> None:
    """POST /api/embed."""
    request = read_object(exchange.body, name="EmbedRequest", empty="missing request body")
    name = request.get("model") or ""
    texts = _texts(request.get("input"))
    vectors, stats = await embed_texts(exchange, request, name, texts)
    counts = _counts(stats)
    kept = {key: counts[key] for key in ("total_duration", "load_duration", "prompt_eval_count") if key in counts}
    await exchange.reply(200, go_json({"model": name, "embeddings": vectors, **kept}), JSON)


async def embeddings(exchange: SimulatedExchange) -> None:
    """POST /api/embeddings, the old form: one text, one vector, names in exact case."""
    request = read_object(exchange.body, name="EmbeddingRequest", empty="missing request body")
    name, prompt = request.get("model") or "", request.get("prompt") or ""
    file = exchange.host.server.shelf.find(name) if name else None
    if file is not None and name.strip() not in (file.name, file.name.removesuffix(":latest")):
        raise ApiError(404, f'model "{name}" not found, try pulling it first')
    vectors, _ = await embed_texts(exchange, request, name, [prompt] if prompt else [])
    await exchange.reply(200, go_json({"embedding": vectors[0] if vectors else []}), JSON)


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "invalid input type")
    return texts


async def embed_texts(
    exchange: SimulatedExchange, request: dict[str, Any], name: str, texts: list[str]
) -> tuple[list[list[float]], Stats]:
    """The vectors of some texts, once the model has worked for them. Raises `ApiError`, `RunnerGone`, `Busy`."""
    if not name:
        raise ApiError(404, "model '' not found")
    file = find_model(exchange, name, _any_capability(exchange, name), 'model "{}" not found, try pulling it first')
    ask = Ask(options=request.get("options"), keep_alive=keep_alive(exchange, request))
    work = embedding_work(file, exchange.host.server.profile, texts, ask)
    with with_faults(exchange, exchange.host.begin(work)) as run:
        await run.ready()
        return [embedding(file.weights, text, file.embedding_length) for text in texts], stats_of(run.job)
