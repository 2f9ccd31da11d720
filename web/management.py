"""Models come and go: pull, push, create, copy, delete, blobs. One server's business, or every holder's.

What cannot be read goes to any server, so that the refusal is in Ollama's own words.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quart import Blueprint, Response, request

from fleet import names
from fleet.dialects import missing_model_text
from fleet.errors import ModelNotFound, NoServer
from fleet.ids import ANY_MODEL, ModelName, ServerId
from web import replies
from web.connection import Relay
from web.errors import NotOffered
from web.fanout import Reply, ask_all
from web.pulling import pull
from web.reading import managed_call, plain_call

if TYPE_CHECKING:
    from actors.system import System
    from fleet.call import Call, Downstream
    from fleet.peek import Peek


def blueprint(system: System) -> Blueprint:
    """Routes of Ollama's model management."""
    routes = Blueprint("management", __name__)
    _add_transfers(routes, system)
    _add_fanned_out(routes, system)
    _add_refused(routes, system)
    return routes


def _add_transfers(routes: Blueprint, system: System) -> None:
    @routes.post("/api/pull")
    async def pull_model() -> Relay:
        seen, call = await managed_call()
        model = names.canonical(seen.asked)
        if not seen.readable or model == ANY_MODEL:
            return _to(system, system.any_server(), call)
        targets = system.holders(model) or system.placement(model, system.config.placement.pull_copies)
        return Relay(partial(pull, system, targets, seen.asked, call))

    @routes.post("/api/push")
    async def push() -> Relay:
        seen, call = await managed_call()
        holders = system.holders(names.canonical(seen.asked))
        return _to(system, holders[0] if holders else system.any_server(), call)

    @routes.post("/api/create")
    async def create() -> Relay:
        seen, call = await managed_call()
        return _to(system, _maker(system, seen), call, changes=True)

    @routes.route("/api/blobs/<digest>", methods=["HEAD", "POST"])
    async def blob(digest: str) -> Relay:
        body = request.body if request.method == "POST" else b""
        call = plain_call(body, content_length=request.content_length)
        return _to(system, system.builder(), call)


def _add_fanned_out(routes: Blueprint, system: System) -> None:
    @routes.post("/api/copy")
    async def copy() -> Response | Relay:
        seen, call = await managed_call()
        source, destination = seen.source or "", seen.destination or ""
        if not (seen.readable and names.is_valid(source) and names.is_valid(destination)):
            return _to(system, system.any_server(), call)
        holders = _holders(system, "/api/copy", source)
        replied = await ask_all(holders, lambda server: system.client(server).copy(source, destination))
        return _verdict(system, replied)

    @routes.delete("/api/delete")
    async def delete() -> Response | Relay:
        seen, call = await managed_call()
        if not (seen.readable and names.is_valid(seen.asked)):
            return _to(system, system.any_server(), call)
        holders = _holders(system, "/api/delete", seen.asked)
        return _verdict(system, await ask_all(holders, lambda server: system.client(server).delete(seen.asked)))


def _add_refused(routes: Blueprint, system: System) -> None:
    async def refused(**_: str) -> Response:
        raise NotOffered("accounts belong to single servers: sign in or out on the server itself")

    for path, methods in (("/api/me", ["POST"]), ("/api/signout", ["POST"]), ("/api/user/keys/<key>", ["DELETE"])):
        routes.add_url_rule(path, path, refused, methods=methods)

    async def no_search() -> Response:
        raise NotOffered("web search needs a server that is signed in to Ollama's cloud: ask that server itself")

    for path in ("/api/experimental/web_search", "/api/experimental/web_fetch"):
        routes.add_url_rule(path, path, no_search, methods=["POST"])

    @routes.get("/api/experimental/model-recommendations")
    async def recommendations() -> Relay:
        return _to(system, system.any_server(), plain_call(b""))


def _to(system: System, server: ServerId, call: Call, *, changes: bool = False) -> Relay:
    """Pass the call through to one server; `changes`: its inventory is another one afterwards."""

    async def work(down: Downstream) -> None:
        try:
            await system.relay_to(server, call, down)
        finally:
            if changes:
                _refresh(system, [server])

    return Relay(work)


def _maker(system: System, seen: Peek) -> ServerId:
    """Where to create: where the files are, or where the model to start from is.

    A server without that model would download it from the registry.
    """
    if seen.has_files or seen.has_adapters or not seen.from_:
        return system.builder()
    source = names.canonical(seen.from_)
    if holders := system.holders(source):
        return holders[0]
    if system.known(source):
        raise _away(source)
    return system.builder()


def _holders(system: System, endpoint: str, asked: str) -> list[ServerId]:
    """Every usable server that has the model. Raises ModelNotFound, or NoServer if only dead ones have it."""
    model = names.canonical(asked)
    if holders := system.holders(model):
        return holders
    if system.known(model):
        raise _away(model)
    raise ModelNotFound(missing_model_text(endpoint, asked))


def _away(model: ModelName) -> NoServer:
    return NoServer(f"no server that holds '{model}' can be reached now", retry_after=5.0)


def _verdict(system: System, replied: list[Reply]) -> Response:
    """One answer for all: Ollama's empty 200, the refusal they agree on, or who failed."""
    _refresh(system, [reply.server for reply in replied])
    bad = [reply for reply in replied if not reply.good]
    if not bad:
        return replies.nothing()
    if len(bad) == len(replied) and bad[0].status and len({(reply.status, reply.body) for reply in bad}) == 1:
        return replies.raw(bad[0].body, status=bad[0].status)
    failed = ", ".join(f"{reply.server} ({reply.status or 'unreachable'})" for reply in bad)
    done = len(replied) - len(bad)
    return replies.json({"error": f"done on {done} of {len(replied)} servers; failed on {failed}"}, 500)


def _refresh(system: System, servers: list[ServerId]) -> None:
    for server in servers:
        if server in system.servers:
            system.refresh(server)
