"""Transcriptions: a multipart form with a model name and a file."""

from __future__ import annotations

import re
from typing import Final

from fleet.simulator import Ask
from web.simulator.engine.errors import ApiError, go_json
from web.simulator.engine.exchange import SimulatedExchange
from web.simulator.engine.request_model import find_model, start, whole_answer
from web.simulator.ollama_api.openai import JSON

_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME: Final = re.compile(rb'(?<!file)name="([^"]*)"')
_LIMIT: Final = 25 * 1024 * 1024


async def transcriptions(exchange: SimulatedExchange) -> None:
    """POST /v1/audio/transcriptions; needs a model with the `audio` capability (`whisper` in its name)."""
    fields = _form(exchange)
    name = fields.get("model", b"").decode("utf-8", "replace")
    if not name:
        raise ApiError(400, "model is required")
    if "file" not in fields:
        raise ApiError(400, "file is required")
    if len(fields["file"]) > _LIMIT:
        raise ApiError(400, "file is too large")
    file = find_model(exchange, name, "audio")
    ask = Ask(f"transcribe {len(fields['file'])} bytes", {}, exchange.host.server.profile.keep_alive, held=True)
    with start(exchange, file, ask) as run:
        text, _, _ = await whole_answer(run)
    if fields.get("response_format") == b"text":
        await exchange.reply(200, text.encode(), "text/plain; charset=utf-8")
    else:
        await exchange.reply(200, go_json({"text": text}) + b"\n", JSON)


def _form(exchange: SimulatedExchange) -> dict[str, bytes]:
    found = _BOUNDARY.search(exchange.seen.header("content-type") or "")
    if found is None:
        raise ApiError(400, "failed to parse multipart form")
    fields = {}
    for part in exchange.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if (name := _NAME.search(head)) is not None:
            fields[name[1].decode("utf-8", "replace")] = content.removesuffix(b"\r\n")
    return fields
