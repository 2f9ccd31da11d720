"""OpenAI's responses route (stateless: nothing is stored)."""

from __future__ import annotations

from typing import Any

from fleet.simulator import Ask, Stats
from web.simulator.engine.errors import go_json
from web.simulator.engine.exchange import Headers, SimulatedExchange
from web.simulator.engine.go_json import RESPONSES
from web.simulator.engine.request_model import find_model, prompt_of, start, stream_answer, whole_answer
from web.simulator.ollama_api.anthropic import event
from web.simulator.ollama_api.openai import JSON, read_v1


async def responses(exchange: SimulatedExchange) -> None:
    """POST /v1/responses."""
    request, name = read_v1(exchange, "ResponsesRequest", RESPONSES)
    file = find_model(exchange, name, "completion")
    limit = request.get("max_output_tokens")
    ask = Ask(
        _prompt(request), {"num_predict": limit} if limit else {}, exchange.host.server.profile.keep_alive, held=True
    )
    with start(exchange, file, ask) as run:
        events = _Events(exchange, name, run.tokens)
        if request.get("stream"):
            await stream_answer(exchange, run, events)
        else:
            _, stats, reason = await whole_answer(run)
            await exchange.reply(200, go_json(events.whole(stats, reason)) + b"\n", JSON)


def _prompt(request: dict[str, Any]) -> str:
    given = request.get("input") or " "
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    instructions = request.get("instructions")
    return prompt_of([*([{"role": "system", "content": instructions}] if instructions else []), *turns])


class _Events:
    """Events of one responses stream, numbered."""

    content_type = "text/event-stream"
    headers: Headers = (("Cache-Control", "no-cache"),)

    def __init__(self, exchange: SimulatedExchange, name: str, tokens: tuple[str, ...]) -> None:
        serial = exchange.host.requests_seen
        self._text = "".join(tokens)
        self._item_id = f"msg_sim_{serial}"
        self._next = 0
        self._base: dict[str, Any] = {
            "id": f"resp_sim_{serial}",
            "object": "response",
            "created_at": int(exchange.host.wall()),
            "model": name,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "store": False,
        }

    def _event(self, name: str, **fields: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        return event(name, sequence_number=number, **fields)

    def _item(self, text: str | None) -> dict[str, Any]:
        content = [] if text is None else [self._part(text)]
        status = "in_progress" if text is None else "completed"
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def token(self, text: str, index: int) -> bytes:
        opening = self._opening() if index == 0 else b""
        where = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        return opening + self._event("response.output_text.delta", **where, delta=text, logprobs=[])

    def _opening(self) -> bytes:
        begun = {**self._base, "status": "in_progress", "output": []}
        where = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        return b"".join(
            (
                self._event("response.created", response=begun),
                self._event("response.in_progress", response=begun),
                self._event("response.output_item.added", output_index=0, item=self._item(None)),
                self._event("response.content_part.added", **where, part=self._part("")),
            )
        )

    def final(self, stats: Stats, reason: str) -> bytes:
        where = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        done = self.whole(stats, reason)
        return b"".join(
            (
                self._event("response.output_text.done", **where, text=self._text, logprobs=[]),
                self._event("response.content_part.done", **where, part=self._part(self._text)),
                self._event("response.output_item.done", output_index=0, item=self._item(self._text)),
                self._event("response.completed", response=done),
            )
        )

    def broken(self) -> bytes:
        return b""

    def whole(self, stats: Stats, reason: str) -> dict[str, Any]:
        return {
            **self._base,
            "status": "completed" if reason == "stop" else "incomplete",
            "output": [self._item(self._text)],
            "usage": {
                "input_tokens": stats.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": stats.tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": stats.prompt_tokens + stats.tokens,
            },
        }
