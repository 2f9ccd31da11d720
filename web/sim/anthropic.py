"""Anthropic's messages route."""

from __future__ import annotations

from typing import Any

from fleet.simulator import Ask, Stats, answer
from web.sim.asking import find_model, prompt_of, start, stream_answer, text_of, whole_answer
from web.sim.errors import ApiError, go_json
from web.sim.exchange import Exchange, Headers
from web.sim.openai import JSON, read_v1


async def messages(exchange: Exchange) -> None:
    """POST /v1/messages. `max_tokens` is an upper limit here, since every client must send one."""
    request, name = read_v1(exchange, "MessagesRequest")
    limit, turns = request.get("max_tokens") or 0, request.get("messages") or []
    if limit <= 0:
        raise ApiError(400, "max_tokens is required and must be positive")
    if not turns:
        raise ApiError(400, "messages is required")
    file = find_model(exchange, name, "completion")
    system = text_of(request.get("system"))
    prompt = prompt_of([*([{"role": "system", "content": system}] if system else []), *turns])
    natural = len(answer(file.weights, prompt, 0, None, as_json=False))
    options = {"num_predict": limit} if limit <= natural else {}
    ask = Ask(prompt, options, exchange.host.server.profile.keep_alive, held=True)
    with start(exchange, file, ask) as run:
        events = _Events(exchange, name, run.job.work.prompt_tokens)
        if request.get("stream"):
            await stream_answer(exchange, run, events)
        else:
            text, stats, reason = await whole_answer(run)
            await exchange.reply(200, go_json(events.whole(text, stats, reason)) + b"\n", JSON)


def event(name: str, **fields: Any) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + go_json({"type": name, **fields}) + b"\n\n"


def _stop_reason(reason: str) -> str:
    return "max_tokens" if reason == "length" else "end_turn"


class _Events:
    """Events of one messages stream."""

    content_type = "text/event-stream"
    headers: Headers = (("Cache-Control", "no-cache"),)

    def __init__(self, exchange: Exchange, name: str, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._base = {
            "id": f"msg_sim_{exchange.host.requests_seen}",
            "type": "message",
            "role": "assistant",
            "model": name,
        }

    def token(self, text: str, index: int) -> bytes:
        delta = event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        return self._opening() + delta if index == 0 else delta

    def _opening(self) -> bytes:
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._base,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        block = {"type": "text", "text": ""}
        return event("message_start", message=message) + event("content_block_start", index=0, content_block=block)

    def final(self, stats: Stats, reason: str) -> bytes:
        delta = {"stop_reason": _stop_reason(reason), "stop_sequence": None}
        usage = {"input_tokens": stats.prompt_tokens, "output_tokens": stats.tokens}
        ended = event("content_block_stop", index=0) + event("message_delta", delta=delta, usage=usage)
        return ended + event("message_stop")

    def broken(self) -> bytes:
        return b""

    def whole(self, text: str, stats: Stats, reason: str) -> dict[str, Any]:
        return {
            **self._base,
            "content": [{"type": "text", "text": text}],
            "stop_reason": _stop_reason(reason),
            "stop_sequence": None,
            "usage": {"input_tokens": stats.prompt_tokens, "output_tokens": stats.tokens},
        }
