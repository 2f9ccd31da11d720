"""Anthropic's messages route."""

from __future__ import annotations

from typing import Any

from fleet.simulator import Ask, Stats, answer
from web.simulator.engine.answer_parts import AnswerParts, TokenKind, call_for, parts_of
from web.simulator.engine.errors import ApiError, go_json
from web.simulator.engine.exchange import Headers, SimulatedExchange
from web.simulator.engine.go_json import MESSAGES
from web.simulator.engine.request_model import find_model, prompt_of, start, stream_answer, text_of, whole_answer
from web.simulator.ollama_api.openai import JSON, read_v1


async def messages(exchange: SimulatedExchange) -> None:
    """POST /v1/messages. `max_tokens` is an upper limit here, since every client must send one."""
    request, name = read_v1(exchange, "MessagesRequest", MESSAGES)
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
    # A model that cannot think is asked nevertheless: Claude Code always asks.
    think = (request.get("thinking") or {}).get("type") in ("enabled", "adaptive") and "thinking" in file.capabilities
    with start(exchange, file, ask) as run:
        parts = parts_of(run.tokens, exchange.host.requests_seen, think=think, call=call_for(request))
        events = _Events(exchange, name, run.job.work.prompt_tokens, parts)
        if request.get("stream"):
            await stream_answer(exchange, run, events)
        else:
            _, stats, reason = await whole_answer(run)
            await exchange.reply(200, go_json(events.whole(run.tokens, stats, reason)) + b"\n", JSON)


def event(name: str, **fields: Any) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + go_json({"type": name, **fields}) + b"\n\n"


class _Events:
    """Events of one messages stream: blocks one after the other, each opened, filled and closed."""

    content_type = "text/event-stream"
    headers: Headers = (("Cache-Control", "no-cache"),)

    def __init__(self, exchange: SimulatedExchange, name: str, prompt_tokens: int, parts: AnswerParts) -> None:
        self._prompt_tokens = prompt_tokens
        self._parts = parts
        self._open: TokenKind | None = None
        self._block = -1
        self._base = {
            "id": f"msg_sim_{exchange.host.requests_seen}",
            "type": "message",
            "role": "assistant",
            "model": name,
        }

    def token(self, text: str, index: int) -> bytes:
        opening = self._opening() if index == 0 else b""
        kind = self._parts.kind(index)
        if kind is TokenKind.CALL:
            return opening
        key = "thinking" if kind is TokenKind.THOUGHT else "text"
        return opening + self._enter(kind, self._empty(kind)) + self._delta(f"{key}_delta", **{key: text})

    def _opening(self) -> bytes:
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._base,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return event("message_start", message=message)

    def _enter(self, kind: TokenKind, block: dict[str, Any]) -> bytes:
        """The block of this kind, opened unless it is open already."""
        if self._open is kind:
            return b""
        closed = self._leave()
        self._open, self._block = kind, self._block + 1
        return closed + event("content_block_start", index=self._block, content_block=block)

    def _leave(self) -> bytes:
        return b"" if self._open is None else event("content_block_stop", index=self._block)

    def _delta(self, kind: str, **fields: str) -> bytes:
        return event("content_block_delta", index=self._block, delta={"type": kind, **fields})

    def _empty(self, kind: TokenKind) -> dict[str, Any]:
        """A block of this kind before anything is in it."""
        if kind is TokenKind.CALL:
            assert self._parts.call is not None
            return {"type": "tool_use", "id": self._parts.call_id, "name": self._parts.call.name, "input": {}}
        return {"type": "text", "text": ""} if kind is TokenKind.WORD else {"type": "thinking", "thinking": ""}

    def final(self, stats: Stats, reason: str) -> bytes:
        called = b""
        if self._parts.call is not None:
            called = self._enter(TokenKind.CALL, self._empty(TokenKind.CALL))
            called += self._delta("input_json_delta", partial_json=self._parts.arguments)
        delta = {"stop_reason": self._stop_reason(reason), "stop_sequence": None}
        usage = {"input_tokens": stats.prompt_tokens, "output_tokens": stats.tokens}
        return called + self._leave() + event("message_delta", delta=delta, usage=usage) + event("message_stop")

    def broken(self) -> bytes:
        return b""

    def _stop_reason(self, reason: str) -> str:
        if self._parts.call is not None:
            return "tool_use"
        return "max_tokens" if reason == "length" else "end_turn"

    def whole(self, tokens: tuple[str, ...], stats: Stats, reason: str) -> dict[str, Any]:
        thoughts, text = self._parts.split(tokens)
        blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": thoughts, "signature": ""}] if thoughts else []
        if (call := self._parts.call) is None:
            blocks.append({"type": "text", "text": text})
        else:
            blocks.append({**self._empty(TokenKind.CALL), "input": call.arguments})
        return {
            **self._base,
            "content": blocks,
            "stop_reason": self._stop_reason(reason),
            "stop_sequence": None,
            "usage": {"input_tokens": stats.prompt_tokens, "output_tokens": stats.tokens},
        }
