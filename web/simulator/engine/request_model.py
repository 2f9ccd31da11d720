"""From a decoded request to a job of the server: what all dialects share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fleet.simulator import Ask, ModelFile, Stats, keep_alive_seconds, work_for
from web.simulator.engine.errors import ApiError
from web.simulator.engine.exchange import Headers, SimulatedExchange
from web.simulator.engine.run import JobRun, RunnerGone


def find_model(
    exchange: SimulatedExchange, name: str, capability: str, text: str = "model '{}' not found"
) -> ModelFile:
    """The installed model of that name. Raises `ApiError` 404 with `text`, or 400 if it cannot do that."""
    file = exchange.host.server.shelf.find(name)
    if file is None:
        raise ApiError(404, text.format(name))
    if capability not in file.capabilities:
        what = {"completion": "chat" if "chat" in exchange.path else "generate"}.get(capability, capability)
        raise ApiError(400, f'"{name}" does not support {what}')
    return file


def keep_alive(exchange: SimulatedExchange, request: dict[str, Any]) -> float:
    """Seconds, from the request or the server's default. Raises `BadDuration`."""
    return keep_alive_seconds(request.get("keep_alive"), exchange.host.server.profile.keep_alive)


def as_json(request: dict[str, Any]) -> bool:
    """Whether a native `format` asks for JSON. Raises `ApiError` 500, as Ollama does."""
    wanted = request.get("format")
    if wanted in (None, "", "json") or isinstance(wanted, dict):
        return bool(wanted)
    text = f'"{wanted}"' if isinstance(wanted, str) else str(wanted).lower()
    raise ApiError(500, f'invalid format: {text}; expected "json" or a valid JSON Schema object')


def prompt_of(messages: Iterable[Any]) -> str:
    """One prompt of a conversation; system messages move to the front, as Ollama moves them."""
    turns = [(str(m.get("role", "user")), text_of(m.get("content"))) for m in messages if isinstance(m, dict)]
    turns.sort(key=lambda turn: turn[0] != "system")
    return "".join(f"{role}: {text}\n" for role, text in turns) + "assistant:" if turns else ""


def text_of(content: Any) -> str:
    """The text of a message, be it a string or a list of parts. Raises `ApiError` 400 for remote images."""
    if isinstance(content, str):
        return content
    return "".join(_part(part) for part in content) if isinstance(content, list) else ""


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        raise ApiError(400, "invalid image input")
    return str(part.get("text") or part.get("content") or "")


def start(exchange: SimulatedExchange, file: ModelFile, ask: Ask) -> JobRun:
    """Submit the work; the faults of this request go along. Raises `Busy`, `BadOption`."""
    run = exchange.host.begin(work_for(file, exchange.host.server.profile, ask))
    return with_faults(exchange, run)


def with_faults(exchange: SimulatedExchange, run: JobRun) -> JobRun:
    """Let the runner die under this run, if the request's faults say so."""
    if "runner-crash" in exchange.plan:
        run.crash_after = 0
    elif (fault := exchange.plan.get("runner-crash-mid")) is not None:
        run.crash_after = fault.count
    return run


class Renderer(Protocol):
    """How one dialect writes a streamed answer."""

    content_type: str
    headers: Headers

    def token(self, text: str, index: int) -> bytes:
        """The chunk of one token; before the first one, whatever opens the stream."""

    def final(self, stats: Stats, reason: str) -> bytes:
        """All that follows the last token."""

    def broken(self) -> bytes:
        """What is said when the runner dies in the middle; may be nothing."""


def reason_of(run: JobRun) -> str:
    """`stop` or `length`."""
    return "length" if run.job.work.length_limited else "stop"


async def stream_answer(exchange: SimulatedExchange, run: JobRun, renderer: Renderer) -> None:
    """Answer token by token. Raises `RunnerGone` only while no header was sent."""
    await run.ready()
    await exchange.open(200, renderer.content_type, renderer.headers)
    try:
        for index, text in enumerate(run.tokens):
            await run.reach(index)
            await exchange.write(renderer.token(text, index))
        final = renderer.final(run.finish(), reason_of(run))
    except RunnerGone:
        await exchange.end(renderer.broken())
    else:
        await exchange.end(final)


async def whole_answer(run: JobRun) -> tuple[str, Stats, str]:
    """Text, statistics and reason of an answer that is not streamed. Raises `RunnerGone`."""
    await run.ready()
    for index in (0, run.crash_after or 0, len(run.tokens) - 1):
        if index < len(run.tokens):
            await run.reach(index)
    return "".join(run.tokens), run.finish(), reason_of(run)
