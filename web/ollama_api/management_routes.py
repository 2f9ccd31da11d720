"""Models come and go: pull, push, create, copy, delete, blobs. One server's business, or every holder's.

What cannot be read goes to any server, so that the refusal is in Ollama's own words.
"""

from __future__ import annotations

from functools import partial

from quart import Blueprint, Response, request

from actors.system import System
from fleet.common import model_names
from fleet.common.errors import ModelNotFound, NoServer
from fleet.common.ids import ANY_MODEL, ModelName, ServerId
from fleet.protocol.body_fields import Peek
from fleet.protocol.call import Call, Downstream
from fleet.protocol.dialects import missing_model_text
from web.asgi.audited_route import MANAGEMENT, Note, audited
from web.asgi.quart_connection import Relay
from web.asgi.quart_request import managed_call, plain_call
from web.http import responses
from web.http.errors import NotOffered
from web.ollama_api.fan_out import Ask, Reply, ask_all
from web.ollama_api.pull_fan_out import pull
from web.ollama_api.read_your_writes import held, refresh, reread


def blueprint(system: System) -> Blueprint:
    """Routes of Ollama's model management."""
    routes = Blueprint("management", __name__)
    _add_transfers(routes, system)
    _add_fanned_out(routes, system)
    _add_refused(routes, system)
    return routes


def _add_transfers(routes: Blueprint, system: System) -> None:
    @routes.post("/api/pull")
    @audited(MANAGEMENT, "pull")
    async def pull_model(note: Note) -> Relay:
        seen, call = await managed_call()
        model = model_names.canonical(seen.asked)
        note.about(model=seen.asked)
        if not seen.readable or model == ANY_MODEL:
            return _to(system, note, system.queries.any_server(), call)
        targets = system.queries.holders(model) or system.queries.placement(model, system.config.placement.pull_copies)
        note.about(server=",".join(targets))
        return Relay(partial(pull, system, targets, seen.asked, call))

    @routes.post("/api/push")
    @audited(MANAGEMENT, "push")
    async def push(note: Note) -> Relay:
        seen, call = await managed_call()
        note.about(model=seen.asked)
        await system.find(model_names.canonical(seen.asked))
        holders = system.queries.holders(model_names.canonical(seen.asked))
        return _to(system, note, holders[0] if holders else system.queries.any_server(), call)

    @routes.post("/api/create")
    @audited(MANAGEMENT, "create")
    async def create(note: Note) -> Relay:
        seen, call = await managed_call()
        note.about(model=seen.asked)
        await system.find(model_names.canonical(seen.from_ or ""))
        return _to(system, note, _maker(system, seen), call, changes=True)

    @routes.route("/api/blobs/<digest>", methods=["HEAD", "POST"])
    @audited(MANAGEMENT, "blob")
    async def blob(note: Note, digest: str) -> Relay:
        body = request.body if request.method == "POST" else b""
        note.about(method=request.method, digest=digest)
        call = plain_call(body, content_length=request.content_length)
        return _to(system, note, system.queries.builder(), call)


def _add_fanned_out(routes: Blueprint, system: System) -> None:
    @routes.post("/api/copy")
    @audited(MANAGEMENT, "copy")
    async def copy(note: Note) -> Response:
        seen, call = await managed_call()
        source, destination = seen.source or "", seen.destination or ""
        note.about(model=source, destination=destination)
        if not (seen.readable and model_names.is_valid(source) and model_names.is_valid(destination)):
            return _to(system, note, system.queries.any_server(), call)
        return await _everywhere(
            system, note, "/api/copy", source, lambda server: system.client(server).copy(source, destination)
        )

    @routes.delete("/api/delete")
    @audited(MANAGEMENT, "delete")
    async def delete(note: Note) -> Response:
        seen, call = await managed_call()
        note.about(model=seen.asked)
        if not (seen.readable and model_names.is_valid(seen.asked)):
            return _to(system, note, system.queries.any_server(), call)
        return await _everywhere(
            system, note, "/api/delete", seen.asked, lambda server: system.client(server).delete(seen.asked)
        )


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
        return Relay(partial(system.relay_to, system.queries.any_server(), plain_call(b"")))


def _to(system: System, note: Note, server: ServerId, call: Call, *, changes: bool = False) -> Relay:
    """Pass the call through to one server; `changes`: its inventory is another one afterwards."""
    note.about(server=server)

    async def work(down: Downstream) -> None:
        with held(system, [server], down) as last:
            await system.relay_to(server, call, last)

    return Relay(work if changes else partial(system.relay_to, server, call))


def _maker(system: System, seen: Peek) -> ServerId:
    """Where to create: where the files are, or where the model to start from is.

    A server without that model would download it from the registry.
    """
    if seen.has_files or seen.has_adapters or not seen.from_:
        return system.queries.builder()
    source = model_names.canonical(seen.from_)
    if holders := system.queries.holders(source):
        return holders[0]
    if system.queries.known(source):
        raise _away(source)
    return system.queries.builder()


async def _everywhere(system: System, note: Note, endpoint: str, asked: str, ask: Ask) -> Response:
    """Ask every server that holds the model, drained ones too; one answer, when the fleet has seen the change."""
    system.check_open()
    await system.find(model_names.canonical(asked))
    holders, lost = _holders(system, endpoint, asked)
    note.about(server=",".join([*holders, *lost]))
    try:
        replied = await ask_all(holders, ask)
    except BaseException:
        refresh(system, holders)
        raise
    await reread(system, holders)
    verdict = _verdict([*replied, *(Reply(server, 0, b"") for server in lost)])
    verdict.headers["X-Fleet-Server"] = ",".join(holders)
    return verdict


def _holders(system: System, endpoint: str, asked: str) -> tuple[list[ServerId], list[ServerId]]:
    """The holders that answer, and those that do not. Raises ModelNotFound, or NoServer if only dead ones have it."""
    model = model_names.canonical(asked)
    reachable, lost = system.queries.reachable_holders(model), system.queries.unreachable_holders(model)
    if not reachable:
        raise _away(model) if lost else ModelNotFound(missing_model_text(endpoint, asked))
    return reachable, lost


def _away(model: ModelName) -> NoServer:
    return NoServer(f"no server that holds '{model}' can be reached now", retry_after=5.0)


def _verdict(replied: list[Reply]) -> Response:
    """One answer for all: Ollama's empty 200, the refusal they agree on, or who failed.

    A server that has no such model any more is where the others just arrived.
    """
    some = any(reply.good for reply in replied)
    bad = [reply for reply in replied if not (reply.good or (some and reply.missing))]
    if not bad:
        return responses.nothing()
    alike = bad[0].status != 0 and len({(reply.status, reply.body) for reply in bad}) == 1
    if len(bad) == len(replied) and (alike or all(reply.missing for reply in bad)):
        return responses.raw(bad[0].body, status=bad[0].status)
    failed = ", ".join(f"{reply.server} ({reply.status or 'unreachable'})" for reply in bad)
    done = len(replied) - len(bad)
    return responses.json({"error": f"done on {done} of {len(replied)} servers; failed on {failed}"}, 500)
