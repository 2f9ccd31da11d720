"""Servers join, change and leave while the fleet runs; what the admin API did to them survives a restart."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

import trio

from actors.kit.mailbox import ActorGone, Mailbox, Promise
from actors.kit.reply import PATIENCE, heard
from actors.servers.server_context import ServerContext
from actors.servers.server_tree import cut, run_server
from actors.state.messages import ServerChanged, ServerGone, ServerMail, SetAdmin, Welcome
from actors.state.servers import ServerCell
from actors.storage.journal import Document
from actors.upstream.control_client import OllamaClient
from actors.upstream.pool import Pool
from fleet.common.errors import BadRequest, Conflict, ServerNotFound
from fleet.common.ids import ServerId
from fleet.config import ServerSpec, normalise_url
from fleet.config.schema.model import misplaced
from fleet.config.schema.servers import MOST_SERVERS
from fleet.config.schema.urls import hint
from fleet.scheduling import server_overrides
from fleet.scheduling.server_state import Admin, Order, ServerState

log = logging.getLogger("fleet.server")

_KIND: Final = "server"
"""Of the documents in the store that say which servers there are."""
_GRACE = 60.0
"""Seconds for which control calls under way may go on over a client that was replaced."""


Way = tuple[Pool, OllamaClient]
"""How a server is reached: for requests, and for control calls."""


class BackendFactory(Protocol):
    """How backends are reached; tests put servers in memory here. Both raise ValueError for a spec they cannot use.

    `on_connect` is to be told of each connection that was made.
    """

    def pool(self, spec: ServerSpec, on_connect: Callable[[], None]) -> Pool: ...

    def client(self, spec: ServerSpec, on_connect: Callable[[], None]) -> OllamaClient: ...


class Membership:
    """The servers of the fleet. `base` is what the configuration's own layers say; the rest came by the API.

    Every method without `await` is synchronous; `schema.servers` names at every moment those that shall stay.
    """

    def __init__(self, context: ServerContext, backends: BackendFactory, nursery: trio.Nursery) -> None:
        self._context = context
        self._config, self._servers, self._journal = context.config, context.servers, context.journal
        self._clock, self._scheduler = context.clock, context.scheduler
        self._backends = backends
        self._nursery = nursery
        self._leaving: dict[ServerId, trio.Event] = {}
        """Those on their way out, each with what is set if it may stay after all."""
        self.own_urls: Sequence[str] = ()
        """Where the front end listens; never a server of ours."""
        self.base = {spec.id: spec for spec in self._config.current.servers}
        self._kept = self._journal.keep(_KIND, self._document)
        self._orders = self._journal.keep("admin", self._admin_document)

    def start(self) -> None:
        """Let in all servers: the configuration's, as changed by what was kept. Called once.

        Of what was kept, that which cannot be used is set aside: nothing of it may keep the fleet from starting.
        """
        ways: dict[ServerId, Way] = {}
        specs, aside = server_overrides.sorted_out(self.base.values(), self._kept, partial(self._unusable, ways))
        for server, each in aside.items():
            log.warning("%s (%s); it is set aside: add it anew, or remove it", each.problem, each.why)
            self._journal.aside[_KIND, server] = each.why
        self._settle(specs)
        for spec in specs:
            if what := hint(spec.url):
                log.warning("the URL of server %s %s", spec.id, what)
            self._join(spec, ways.get(spec.id) or self._way(spec))
        for server in self._kept:
            self._journal.touch(_KIND, server)  # what is out of date is forgotten
        for server in self._orders:
            if server not in self._servers:  # nor shall a later one of that name obey it
                self._journal.touch("admin", server)
        self._orders = {}

    def _unusable(self, ways: dict[ServerId, Way], spec: ServerSpec) -> str:
        """What is wrong with a server that was kept; else `ways` has how to reach it."""
        if why := misplaced(spec, self._config.current):
            return f"url: {why}"
        try:
            ways[spec.id] = self._way(spec)
        except BadRequest as error:
            return error.message
        return ""

    def effective(self, base: Iterable[ServerSpec]) -> tuple[ServerSpec, ...]:
        """The servers that would be with another `base`: what the API changed still lies over it."""
        now = {spec.id: spec for spec in self._config.current.servers}
        documents = {
            str(each): server_overrides.document(now.get(each), self.base.get(each)) for each in {**self.base, **now}
        }
        kept = {server: doc for server, doc in documents.items() if doc is not None}
        specs, problems = server_overrides.effective(base, kept)
        for problem in problems:
            log.warning("%s", problem)
        return specs

    def keep_out(self, urls: Sequence[str]) -> None:
        """The front end listens there."""
        self.own_urls = urls

    # ---- one server, by the admin API

    def staying(self, server: ServerId) -> ServerCell:
        """A server that is not on its way out. Raises ServerNotFound, Conflict."""
        cell = self._servers.get(server)
        if cell is None:
            raise ServerNotFound(f"server '{server[:100]}' not found")
        if server in self._leaving:
            raise Conflict(f"server '{server}' is being removed")
        return cell

    def add(self, spec: ServerSpec) -> ServerCell:
        """Start to use a server, also in the place of one that was set aside.

        Raises BadRequest if it cannot be reached as it is described; Conflict when the id or an equivalent URL is
        taken, or the fleet is full. Then nothing was changed.
        """
        if spec.id in self._servers:
            raise Conflict(f"server '{spec.id}' already exists")
        way = self._way(spec)  # before anything is kept
        self._check_url(spec)
        if len(self._servers) >= MOST_SERVERS:
            raise Conflict(f"the fleet has {MOST_SERVERS} servers, which is the most")
        self._journal.aside.pop((_KIND, spec.id), None)
        self._settle((*self._config.current.servers, spec))
        return self._join(spec, way)

    def change(self, spec: ServerSpec) -> ServerCell:
        """Another description of a server that exists; what runs on it goes on.

        Raises ServerNotFound, Conflict, and BadRequest if it cannot be reached so. Then nothing was changed.
        """
        cell = self.staying(spec.id)
        way = self._way(spec)
        self._check_url(spec)
        self._journal.aside.pop((_KIND, spec.id), None)
        self._settle(spec if each.id == spec.id else each for each in self._config.current.servers)
        self._alter(cell, spec, way)
        return cell

    async def remove(self, server: ServerId, *, drain: bool = True) -> None:
        """Stop using a server, after its open requests ended (at most `drain_timeout`); forget one that was set aside.

        Raises ServerNotFound, Conflict while `placement.builder` names it or if it was listed again meanwhile, and
        NoAnswer if the fleet stops before it is gone. Cancelled: the removal goes on.
        """
        if self._config.current.placement.builder == server:
            raise Conflict(f"server '{server}' builds the models: change placement.builder first")
        was_aside = self._journal.aside.pop((_KIND, server), None) is not None
        if was_aside:
            self._journal.touch(_KIND, server)
        if server not in self._servers:
            if was_aside:
                return
            raise ServerNotFound(f"server '{server[:100]}' not found")
        self._settle(each for each in self._config.current.servers if each.id != server)
        gone = self._leave(self._servers[server], drain=drain)
        await heard(gone, f"server '{server}'", within=self._config.current.drain_timeout + PATIENCE)

    # ---- all of them, by the configuration

    def follow(self, specs: Iterable[ServerSpec], base: Iterable[ServerSpec] | None = None) -> None:
        """Have exactly these servers: new ones join, changed ones change, the others drain and go. Drops no request.

        `base` replaces what the configuration's layers say. The caller has checked that ids and URLs differ. Raises
        BadRequest if one cannot be reached as it is described; then nothing was changed.
        """
        wanted = {spec.id: spec for spec in specs}
        now = {spec.id: spec for spec in self._config.current.servers}
        ways = {server: self._way(spec) for server, spec in wanted.items()}  # before anything is kept
        for server in {**wanted, **now}:
            if wanted.get(server) != now.get(server):  # it is newer than what was kept
                self._journal.aside.pop((_KIND, server), None)
        self._settle(wanted.values(), base)
        for cell in list(self._servers.values()):
            if cell.state.id not in wanted and cell.state.id not in self._leaving:
                self._leave(cell, drain=True)
        for spec in wanted.values():
            self._receive(spec, ways[spec.id])

    def _receive(self, spec: ServerSpec, way: Way) -> None:
        cell = self._servers.get(spec.id)
        if cell is None:
            self._join(spec, way)
            return
        if (leaving := self._leaving.pop(spec.id, None)) is not None:
            leaving.set()
            cell.mailbox.cast(SetAdmin(Order.ACTIVATE, "listed again"))
        if cell.state.spec != spec:
            self._alter(cell, spec, way)

    # ---- coming, changing, going

    def _way(self, spec: ServerSpec) -> Way:
        """How to reach a server; what there is already stays if it still fits.

        Raises BadRequest if whoever would use the description refuses it.
        """
        cell = self._servers.get(spec.id)
        old = None if cell is None else cell.state.spec
        backends, greet = self._backends, partial(self._greet, spec.id)
        try:
            if cell is None or old is None or normalise_url(old.url) != normalise_url(spec.url):
                return backends.pool(spec, greet), backends.client(spec, greet)
            same = (old.url, old.api_key) == (spec.url, spec.api_key)
            return cell.pool, cell.client if same else backends.client(spec, greet)
        except ValueError as error:
            raise BadRequest(f"url: {error}", details="write it as http://127.0.0.1:11434 is written") from error

    def _greet(self, server: ServerId) -> None:
        """A connection to a server was made, for whatever purpose."""
        if (cell := self._servers.get(server)) is not None:
            cell.greet()

    def _join(self, spec: ServerSpec, way: Way) -> ServerCell:
        now = trio.current_time()
        state = ServerState(spec, added=now, since=now)
        self._recall(state)
        mailbox = Mailbox[ServerMail](f"server {spec.id}")
        cell = ServerCell(state, *way, mailbox)
        self._servers[spec.id] = cell
        self._nursery.start_soon(run_server, self._context, cell, name=f"server {spec.id}")
        return cell

    def _alter(self, cell: ServerCell, spec: ServerSpec, way: Way) -> None:
        """In one turn. Another URL is another machine: nothing that we know of the old one counts for it."""
        state, old = cell.state, cell.state.spec
        state.follow(spec)
        if (old.url, old.api_key) != (spec.url, spec.api_key):
            self._nursery.start_soon(_end_later, cell.client)
            cell.client = way[1]
            cell.mailbox.cast(Welcome())  # as far as we know
        if normalise_url(old.url) != normalise_url(spec.url):
            cell.pool.retire()
            cell.pool = way[0]
            state.start_anew(trio.current_time(), "its URL was changed")
            self._context.model_loads.lost(spec.id)
            self._context.missing_routes.forget(spec.id)
            self._context.breakers.forget_server(spec.id)
        cell.probe_now.set()
        self._scheduler.mailbox.cast(ServerChanged(spec.id))

    def _leave(self, cell: ServerCell, *, drain: bool) -> Promise[None]:
        gone = Promise[None]()
        stay = self._leaving.setdefault(cell.state.id, trio.Event())
        if drain:
            cell.mailbox.cast(SetAdmin(Order.DRAIN, "being removed"))
        self._nursery.start_soon(self._see_off, cell, drain, stay, gone)
        return gone

    async def _see_off(self, cell: ServerCell, drain: bool, stay: trio.Event, gone: Promise[None]) -> None:
        """Forget it: at once, or when it takes no new work and nothing is open on it, or the time is up."""
        server = cell.state.id
        by = trio.current_time() + self._config.current.drain_timeout
        try:
            while drain and (cell.state.usable or cell.leases or cell.transfers) and not stay.is_set():
                with trio.move_on_at(by) as patience:
                    await self._servers.ended.park()
                if patience.cancelled_caught:
                    break
            if self._leaving.get(server) is stay or not drain:
                self._forget(cell)
            if self._servers.get(server) is cell:
                gone.reject(Conflict(f"server '{server}' stays", details="it was listed again while it was removed"))
            gone.resolve(None)
        finally:
            gone.reject(ActorGone(f"the removal of {server} was cut short"))  # unless it is settled

    def _forget(self, cell: ServerCell) -> None:
        server = cell.state.id
        self._leaving.pop(server, None)
        if self._servers.get(server) is not cell:
            return
        del self._servers[server]
        self._context.model_loads.lost(server)
        self._context.missing_routes.forget(server)
        self._scheduler.mailbox.cast(ServerGone(server))
        cut(cell, "server removed")
        self._context.breakers.forget_server(server)
        cell.scope.cancel()  # before the mailbox: a cancelled reader is no crash, one on a closed mailbox is
        while (message := cell.mailbox.receive_nowait()) is not None:
            if isinstance(message, SetAdmin) and message.done is not None:
                message.done.reject(ActorGone(f"server {server} was removed"))
        cell.mailbox.close()
        self._journal.touch("admin", server)

    # ---- what is kept

    def _settle(self, specs: Iterable[ServerSpec], base: Iterable[ServerSpec] | None = None) -> None:
        """These are the servers now, as far as the configuration goes. Of a thousand, only what differs is written."""
        before, listed = {spec.id: spec for spec in self._config.current.servers}, self.base
        if base is not None:
            self.base = {spec.id: spec for spec in base}
        self._config.put_servers(specs)
        now = {spec.id: spec for spec in self._config.current.servers}
        for server in {**listed, **self.base, **before, **now}:
            if before.get(server) != now.get(server) or listed.get(server) != self.base.get(server):
                self._journal.touch(_KIND, server)

    def _document(self, server: str) -> Document | None:
        if (_KIND, server) in self._journal.aside:
            return dict(self._kept[server])
        current = next((spec for spec in self._config.current.servers if spec.id == server), None)
        return server_overrides.document(current, self.base.get(ServerId(server)))

    def _admin_document(self, server: str) -> Document | None:
        cell = self._servers.get(ServerId(server))
        if cell is None or cell.state.admin is Admin.ACTIVE or cell.state.id in self._leaving:
            return None
        state = cell.state
        until = None if state.until == math.inf else self._clock.epoch(state.until)
        since = self._clock.epoch(state.admin_since)
        return {"admin": state.admin.value, "why": state.admin_why, "by": state.by, "since": since, "until": until}

    def _recall(self, state: ServerState) -> None:
        """What the operator said of this server before the restart."""
        doc = self._orders.get(state.id)
        if not doc:
            return
        try:
            admin, why, by = Admin(doc["admin"]), str(doc["why"]), str(doc["by"])
            since = self._clock.moment(float(doc["since"]))
            until = math.inf if doc["until"] is None else self._clock.moment(float(doc["until"]))
        except (KeyError, TypeError, ValueError):
            log.warning("what was kept of the state of a server cannot be read", extra={"server": state.id})
            return
        state.admin, state.admin_why, state.by, state.admin_since, state.until = admin, why, by, since, until

    def _check_url(self, spec: ServerSpec) -> None:
        if normalise_url(spec.url) in {normalise_url(url) for url in self.own_urls}:
            raise Conflict("this is the fleet's own address", details="a fleet cannot be one of its own servers")
        for cell in self._servers.values():
            if cell.state.id != spec.id and normalise_url(cell.state.spec.url) == normalise_url(spec.url):
                raise Conflict(f"server '{cell.state.id}' already has an equivalent URL", details=cell.state.spec.url)


async def _end_later(client: OllamaClient) -> None:
    try:
        await trio.sleep(_GRACE)
    finally:
        with trio.move_on_after(1.0, shield=True):
            await client.aclose()
