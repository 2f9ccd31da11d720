"""Routes that bring models in and out: pull, push, create and the blobs beneath."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any, Final

import trio

from fleet.simulator import ModelFile, model_file, short_name
from fleet.simulator.files import sha256
from web.simulator.engine.errors import ApiError, go_json
from web.simulator.engine.exchange import SimulatedExchange
from web.simulator.engine.go_json import read_object

_DIGEST: Final = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_PULLED_SIZE: Final = 4_700_000_000
_STEPS: Final = 4
"""Progress lines per digest."""


async def head(exchange: SimulatedExchange) -> None:
    """Whether a blob is there."""
    await exchange.reply(200 if _digest(exchange) in exchange.host.blobs else 404)


async def upload(exchange: SimulatedExchange) -> None:
    """Take a blob: hash it, keep the digest only. One that is there already is refused unread, as Ollama does."""
    digest = _digest(exchange)
    if digest in exchange.host.blobs:
        exchange.drain = True
        await exchange.reply(200)
        return
    found = hashlib.sha256()
    while piece := await exchange.read_some():
        found.update(piece)
        exchange.seen.body_size += len(piece)
    actual = f"sha256:{found.hexdigest()}"
    if actual != digest:
        raise ApiError(400, f'digest mismatch, expected "{digest}", got "{actual}"')
    exchange.host.blobs.add(digest)
    await exchange.reply(201)


def _digest(exchange: SimulatedExchange) -> str:
    digest = exchange.last_segment
    if not _DIGEST.fullmatch(digest):
        exchange.drain = exchange.method == "POST"
        raise ApiError(400, "invalid digest format")
    return digest.replace("-", ":").lower()


class _Progress:
    """Status lines, streamed or only the last of them."""

    def __init__(self, exchange: SimulatedExchange, request: dict[str, Any]) -> None:
        self._exchange = exchange
        self._streams = request.get("stream") is not False

    async def begin(self) -> None:
        if self._streams:
            await self._exchange.open(200, "application/x-ndjson")

    async def say(self, **line: Any) -> None:
        if self._streams:
            await self._exchange.write(go_json(line) + b"\n")

    async def end(self) -> None:
        line = go_json({"status": "success"})
        if self._streams:
            await self._exchange.end(line + b"\n")
        else:
            await self._exchange.reply(200, line, "application/json")

    async def fail(self, text: str) -> None:
        """In a stream, errors come inside the 200."""
        if not self._streams:
            raise ApiError(500, text)
        await self._exchange.end(go_json({"error": text}) + b"\n")


async def pull(exchange: SimulatedExchange) -> None:
    """Download from a registry that has every model whose name does not contain `missing`."""
    request = read_object(exchange.body, name="PullRequest", empty="missing request body")
    name = short_name(_name(request))
    progress = _Progress(exchange, request)
    await progress.begin()
    await progress.say(status="pulling manifest")
    if "missing" in name:
        await progress.fail("pull model manifest: file does not exist")
        return
    held = exchange.host.server.shelf.find(name)
    file = held or replace(model_file(name, _PULLED_SIZE), modified_at=exchange.host.wall())
    await _download(exchange, progress, file, 0.0 if held else exchange.host.server.profile.pull_seconds)
    for status in ("verifying sha256 digest", "writing manifest"):
        await progress.say(status=status)
    exchange.host.server.shelf.put(file)
    await progress.end()


async def _download(exchange: SimulatedExchange, progress: _Progress, file: ModelFile, seconds: float) -> None:
    layers = [(file.weights, file.size), (sha256(f"template {file.name}"), 1500), (sha256(f"config {file.name}"), 485)]
    for digest, total in layers:
        for step in range(1, _STEPS + 1):
            await trio.sleep(seconds / _STEPS * total / (file.size + 1985))
            status, completed = f"pulling {digest[:12]}", total * step // _STEPS
            await progress.say(status=status, digest=f"sha256:{digest}", total=total, completed=completed)


async def push(exchange: SimulatedExchange) -> None:
    """Upload to that registry: errors come inside the stream even for unknown models."""
    request = read_object(exchange.body, name="PushRequest", empty="missing request body")
    name = _name(request)
    progress = _Progress(exchange, request)
    await progress.begin()
    await progress.say(status="retrieving manifest")
    file = exchange.host.server.shelf.find(name)
    if file is None:
        await progress.fail(f"model '{name}' not found")
        return
    digest = f"sha256:{file.weights}"
    for step in range(1, _STEPS + 1):
        completed = file.size * step // _STEPS
        await progress.say(status=f"pushing {digest[7:19]}", digest=digest, total=file.size, completed=completed)
    await progress.say(status="pushing manifest")
    await progress.end()


async def create(exchange: SimulatedExchange) -> None:
    """A model from another one, or from uploaded blobs."""
    request = read_object(exchange.body, name="CreateRequest", empty="missing request body")
    name, source = short_name(_name(request)), str(request.get("from") or "")
    files: dict[str, str] = request.get("files") or {}
    if not source and not files:
        raise ApiError(400, "neither 'from' or 'files' was specified")
    progress = _Progress(exchange, request)
    await progress.begin()
    absent = [digest for digest in files.values() if digest not in exchange.host.blobs]
    if absent:
        await progress.fail(f"open /models/blobs/{absent[0].replace(':', '-')}: no such file or directory")
        return
    if (file := _created(exchange, name, source, files)) is None:
        await progress.fail("pull model manifest: file does not exist")
        return
    for status in ("parsing GGUF", "using existing layer sha256:" + file.weights, "writing manifest"):
        await progress.say(status=status)
    parameters = {**file.parameters, **(request.get("parameters") or {})}
    exchange.host.server.shelf.put(replace(file, parameters=parameters))
    await progress.end()


def _created(exchange: SimulatedExchange, name: str, source: str, files: dict[str, str]) -> ModelFile | None:
    made = exchange.host.wall()
    if files:
        weights = next(iter(files.values())).removeprefix("sha256:")
        digest = sha256(f"manifest {name} {weights}")
        return replace(model_file(name, 1_000_000), weights=weights, digest=digest, modified_at=made)
    parent = exchange.host.server.shelf.find(source)
    return None if parent is None else replace(parent, name=name, modified_at=made, digest=sha256(f"{name} {source}"))


def _name(request: dict[str, Any]) -> str:
    name = str(request.get("model") or request.get("name") or "")
    if not name:
        raise ApiError(400, "invalid model name")
    return name
