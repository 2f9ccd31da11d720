"""Routes about models that need no model to work: lists, details, copies, deletions."""

from __future__ import annotations

import re
from typing import Any

from fleet.simulator import InvalidName, ModelFile, details, name_key, ps_rows, rfc3339, short_name, tags_rows
from web.simulator.engine.errors import ApiError, go_json
from web.simulator.engine.exchange import SimulatedExchange
from web.simulator.engine.go_json import read_object

JSON = "application/json; charset=utf-8"


async def root(exchange: SimulatedExchange) -> None:
    await exchange.reply(200, b"Ollama is running", "text/plain; charset=utf-8")


async def version(exchange: SimulatedExchange) -> None:
    await exchange.reply(200, go_json({"version": exchange.host.server.profile.version}), JSON)


async def status(exchange: SimulatedExchange) -> None:
    await exchange.reply(200, go_json({"cloud": {"disabled": True, "source": "env"}}), JSON)


async def tags(exchange: SimulatedExchange) -> None:
    await exchange.reply(200, go_json({"models": tags_rows(exchange.host.server)}), JSON)


async def ps(exchange: SimulatedExchange) -> None:
    host = exchange.host
    await exchange.reply(200, go_json({"models": ps_rows(host.server, host.now(), host.wall())}), JSON)


async def show(exchange: SimulatedExchange) -> None:
    """Details of one model; `name` is accepted instead of `model`."""
    request = read_object(exchange.body, name="ShowRequest", empty="missing request body")
    name = request.get("model") or request.get("name") or ""
    if not name:
        raise ApiError(400, "model is required")
    file = exchange.host.server.shelf.find(name)
    if file is None:
        raise ApiError(404, f"model '{short_name(name)}' not found")
    await exchange.reply(200, go_json(_details(file)), JSON)


def _details(file: ModelFile) -> dict[str, Any]:
    return {
        "license": "simulated",
        "modelfile": f"# A simulated model\nFROM {file.name}\n",
        "parameters": "\n".join(f"{key:<30} {value}" for key, value in file.parameters.items()),
        "template": "{{ .Prompt }}",
        "details": details(file),
        "model_info": {
            "general.architecture": file.family,
            "general.basename": file.name.partition(":")[0],
            f"{file.family}.context_length": file.context_length,
            f"{file.family}.embedding_length": file.embedding_length,
        },
        "capabilities": list(file.capabilities),
        "modified_at": rfc3339(file.modified_at),
    }


async def copy(exchange: SimulatedExchange) -> None:
    """A second name for the same files."""
    request = read_object(exchange.body, name="CopyRequest", empty="missing request body")
    source, target = str(request.get("source") or ""), str(request.get("destination") or "")
    for name in (source, target):
        _check_name(name)
    shelf = exchange.host.server.shelf
    file = shelf.find(source)
    if file is None:
        raise ApiError(404, f'model "{source}" not found')
    shelf.copy(file, target, exchange.host.wall())
    await exchange.reply(200)


async def delete(exchange: SimulatedExchange) -> None:
    """Forget a name; a loaded runner stays where it is."""
    request = read_object(exchange.body, name="DeleteRequest", empty="missing request body")
    name = str(request.get("model") or request.get("name") or "")
    _check_name(name)
    if not exchange.host.server.shelf.remove(name):
        raise ApiError(404, f"model '{name}' not found")
    await exchange.reply(200)


def _check_name(name: str) -> None:
    try:
        name_key(name)
    except InvalidName:
        raise ApiError(400, f'name "{name}" is invalid') from None


def openai_row(file: ModelFile, name: str) -> dict[str, Any]:
    """One row of `/v1/models`."""
    owner = re.fullmatch(r"(?:[^/]+/)?([^/]+)/[^/]+", file.name)
    return {
        "id": name,
        "object": "model",
        "created": int(file.modified_at),
        "owned_by": owner[1] if owner else "library",
    }
