"""From a configuration to a running process, and back down in order.

First signal: no new work, readiness off, running requests may end within `drain_timeout`, then everything stops.
Second signal: now. SIGHUP: everything is read anew, or, if the terminal has closed, the same as a first signal. If the
event loop hangs, a timer thread ends the process; if the interpreter does, `web.process.watchdog`.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio

from actors.config.disk import FileThreads
from actors.config.file_watch import Watch
from actors.config.settings import Settings
from actors.config.sources import Origin
from actors.config.tls import secured
from actors.kit.clock import Clock, process_clock
from actors.kit.supervisor import keep_up
from actors.observability.tracing import tracing
from actors.storage.history.opening import recording
from actors.storage.store_location import keeping
from actors.system import System, open_system
from fleet.config import Config, listening
from web.admin.kit.context import AppContext
from web.admin.route_table import TOPICS
from web.app import create_apps
from web.app_reload import follower, patience, renew_all, renew_certificate
from web.asgi.hypercorn_server import MESSAGE_BYTES, serve_apps
from web.asgi.quart_connection import TERMS_KEY
from web.edge.acceptor import Edge, serve_edge
from web.http.ports import Face, Faces
from web.live.routes import keepers
from web.process import hangup, log_format, systemd
from web.process.bind import Bound, bind
from web.process.file_limits import most_clients
from web.process.log_buffer import LogRing, scrubbing
from web.process.private_listener import Inner, private_socket
from web.process.watchdog import Watchdog, watchdog

log = logging.getLogger("fleet.serve")

HARD_EXIT_AFTER: Final = 15.0
"""Seconds beyond `drain_timeout` after which the process is ended from outside the event loop."""
HARD_EXIT_CODE: Final = 70
KILLED_AFTER: Final = 2.0
"""Seconds beyond that after which it is killed from outside the process."""
_TO_EXIT: Final = 5.0
"""Seconds beyond that which a service manager had better wait."""
_GC: Final = (20_000, 20, 20)
"""Allocations between two collections of the young, and how many of each kind before the next kind."""
_ROOM: Final = 1024
"""Bytes of a head that the edge may add to a client's."""
_LAST_WORDS: Final = 2.0
"""Seconds responses get once their requests were revoked, to write their error records."""


def bind_all(config: Config) -> list[Bound]:
    """Open every port of the application. Raises PortTaken; no socket stays open then."""
    server = config.server
    scheme = "https" if server.tls.enabled else "http"
    bound: list[Bound] = []
    try:
        for setting, port in listening(config).items():
            bound.append(bind(server.host, port, setting, scheme, dead_peer=patience(config)))
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound


async def serve(
    config: Config,
    *,
    system: System,
    stop: trio.Event,
    hurry: trio.Event | None = None,
    bound: Sequence[Bound] | None = None,
    inner: Inner | None = None,
    most: float = math.inf,
    context: AppContext | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the application on its ports until `stop`; then drain, for `drain_timeout` or until `hurry`.

    `bound` and `inner` are where to listen, if that is open already; whoever opened `inner` removes it.
    `most` clients are let in at one time, whatever `limits.connections` says.
    `context` is what the admin API shows and changes; else one around `system` alone.
    Reports the URLs, the proxy's first. Raises PortTaken, TlsUnusable, NoPlace. Cancelled: everything ends at once.
    """
    tls = secured(config)
    closing = trio.Event()
    with private_socket(system.clock.wall()) if inner is None else nullcontext(inner) as behind:
        listeners = list(bound) if bound is not None else bind_all(config)
        async with trio.open_nursery() as watching:
            watching.start_soon(system.watch)
            async with trio.open_nursery() as nursery:
                home = context or AppContext.of(system, TOPICS)
                urls = await nursery.start(_listen, config, home, listeners, behind, tls, most, closing)
                system.membership.keep_out(urls)
                task_status.started(urls)
                await stop.wait()
                await _drain(system, system.config.drain_timeout, trio.Event() if hurry is None else hurry)
                closing.set()
            watching.cancel_scope.cancel()


async def _listen(
    config: Config,
    context: AppContext,
    listeners: Sequence[Bound],
    inner: Inner,
    tls: ssl.SSLContext | None,
    most: float,
    closing: trio.Event,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    """The edge on the ports, and behind it the app on its private socket, which outlives it."""
    apps = create_apps(context.system, context)
    app = apps[Face.PROXY]
    async with trio.open_nursery() as nursery:
        for keep in keepers(apps[Face.DASHBOARD]):
            nursery.start_soon(keep, closing)
        done = trio.Event()
        await nursery.start(partial(_serve_app, context.system, config, Faces(apps), inner, done))
        edge = Edge(context.system, context.gate, inner, app.config[TERMS_KEY], tls, most)
        unfollow = context.system.config_ref.follow(follower(list(apps.values()), edge, listeners))
        if tls is not None:
            threads = FileThreads("reading the certificate")
            context.settings.renew_also(partial(renew_certificate, edge, context.system, threads))
        try:
            await serve_edge(listeners, edge, stop=closing, drain_timeout=_LAST_WORDS, task_status=task_status)
        finally:
            unfollow()
        done.set()


async def _serve_app(
    system: System,
    config: Config,
    app: Any,
    inner: Inner,
    stop: trio.Event,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await serve_apps(
        [inner.bound],
        app,
        stop=stop,
        drain_timeout=_LAST_WORDS,
        header_bytes=config.limits.header_bytes + _ROOM,
        idle=math.inf,
        arriving=inner.arriving,
        message_bytes=lambda: max(MESSAGE_BYTES, system.config.dashboard.message_bytes),
        task_status=task_status,
    )


async def _drain(system: System, within: float, hurry: trio.Event) -> None:
    """Listeners stay open meanwhile: probes see "not ready", clients a 503 instead of a refused connection."""
    system.drain()
    with trio.move_on_after(within):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_first_of, system.drained, nursery.cancel_scope)
            nursery.start_soon(_first_of, hurry.wait, nursery.cancel_scope)
    if system.in_flight:
        log.warning("%d open requests did not end in time and are cut", system.in_flight)
    system.revoke_all("the fleet stops")


async def _first_of(wait: Callable[[], object], scope: trio.CancelScope) -> None:
    await wait()  # type: ignore[misc]
    scope.cancel()


class Setting:
    """What may stand around and beside a running fleet: nothing, or a demo's servers and traffic."""

    @asynccontextmanager
    async def around(self, config: Config) -> AsyncIterator[Config]:
        """Open for as long as the fleet runs; may give another configuration."""
        yield config

    async def beside(self, urls: list[str]) -> None:
        """Runs from when the ports are open until the first signal."""


def run(
    config: Config,
    say: Callable[[str], None],
    *,
    source: str,
    setting: Setting | None = None,
    origin: Origin | None = None,
) -> int:
    """Run the fleet until a signal ends it; the exit code.

    Before anything is started it may raise TlsUnusable, NoPlace, PortTaken and HostUnusable.
    `source` names the configuration file, for the operator; `origin` is where the configuration came from, if it can
    be read again and saved.
    """
    secured(config)
    with (
        private_socket(process_clock().wall()) as inner,
        watchdog(_most(config.drain_timeout) + KILLED_AFTER) as outside,
    ):
        doors = _Doors(bind_all(config), inner, outside, origin)
        _rarely_collect()
        return trio.run(_main, config, doors, hangup.bearing(say), source, setting or Setting())


@dataclass(frozen=True, slots=True)
class _Doors:
    """What is open before the event loop runs, so that what is wrong with it can be said in one sentence."""

    bound: Sequence[Bound]
    inner: Inner
    outside: Watchdog
    origin: Origin | None = None


@dataclass(slots=True)
class _End:
    """How the process ends: `stop` after the first signal, `hurry` after the second, at the latest by then."""

    drain_timeout: float
    outside: Watchdog
    stop: trio.Event = field(default_factory=trio.Event)
    hurry: trio.Event = field(default_factory=trio.Event)
    renew: trio.Event = field(default_factory=trio.Event)
    """Set to have everything read anew; then there is another one."""

    def follow(self, before: Config, config: Config) -> None:
        """Another configuration, another patience."""
        self.drain_timeout = config.drain_timeout
        self.outside.wait(_most(self.drain_timeout) + KILLED_AFTER)


def _rarely_collect() -> None:
    """What is loaded by now stays, so no garbage collection need look at it again; and requests leave few cycles.

    Collecting as often as Python does by default would take every twentieth microsecond of a busy fleet.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC)


async def _main(config: Config, doors: _Doors, say: Callable[[str], None], source: str, setting: Setting) -> int:
    end = _End(config.drain_timeout, doors.outside)
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, end, say)
        async with setting.around(config) as whole:
            await _run_system(whole, doors, say, source, setting, end)
        nursery.cancel_scope.cancel()
    return 0


async def _run_system(
    config: Config,
    doors: _Doors,
    say: Callable[[str], None],
    source: str,
    setting: Setting,
    end: _End,
) -> None:
    clock = Clock()
    async with (
        AsyncExitStack() as to_the_end,
        keeping(config, source, clock.wall) as journal,
        recording(config, source, clock) as history,
        tracing(config, clock) as tracer,
        open_system(config, journal=journal, clock=clock, tracer=tracer, history=history) as system,
        trio.open_nursery() as serving,
    ):
        to_the_end.enter_context(scrubbing(lambda text: system.keys.secrets(system.config).scrubbed(text)))
        context = AppContext(system, Settings(system, doors.origin), LogRing.installed(), TOPICS)
        system.config_ref.follow(end.follow)
        urls = await serving.start(_serve, config, context, end, doors)
        say(f"proxy        {urls[0]}")
        say(f"orchestrator {urls[1]}")
        say(f"dashboard    {urls[2]}")
        say(f"metrics      {urls[3]}")
        say(f"config       {source}")
        log_format.release()
        systemd.ready()
        if not config.servers:
            log.warning("no servers configured: add `servers:` to config.yml or set FLEET_SERVERS")
        async with trio.open_nursery() as beside:
            beside.start_soon(setting.beside, urls)
            beside.start_soon(system.keys.follow, system)
            beside.start_soon(keep_up, "reload", partial(_renew, end, context))
            beside.start_soon(keep_up, "configuration watch", Watch(context.settings).run)
            await end.stop.wait()
            beside.cancel_scope.cancel()


async def _serve(
    config: Config,
    context: AppContext,
    end: _End,
    doors: _Doors,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await serve(
        config,
        system=context.system,
        stop=end.stop,
        hurry=end.hurry,
        bound=doors.bound,
        inner=doors.inner,
        most=most_clients(config),
        context=context,
        task_status=task_status,
    )


async def _renew(end: _End, context: AppContext) -> None:
    """Read everything anew whenever that is asked for. Cancelled: what is half read changes nothing."""
    while True:
        await end.renew.wait()
        end.renew = trio.Event()
        await renew_all(context)


async def _watch_signals(
    end: _End,
    say: Callable[[str], None],
    task_status: trio.TaskStatus[None],
) -> None:
    with (
        closing(hangup.Terminal()) as terminal,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
        end.outside.listening(),
    ):
        task_status.started()
        if hangup.came_early():
            _hung_up(end, say, terminal)
        async for number in signals:
            if number == signal.SIGHUP:
                _hung_up(end, say, terminal)
                continue
            end.outside.heard()
            if end.stop.is_set():
                end.hurry.set()
            else:
                _stop(end, say)


def _hung_up(end: _End, say: Callable[[str], None], terminal: hangup.Terminal) -> None:
    """Never a second signal: terminals, shells and `make` send several when one window closes."""
    if end.stop.is_set():
        return
    if terminal.gone:
        _stop(end, say)
    else:
        end.renew.set()


def _stop(end: _End, say: Callable[[str], None]) -> None:
    most = _most(end.drain_timeout)
    systemd.stopping(most + KILLED_AFTER + _TO_EXIT)
    _arm_hard_exit(most)
    end.stop.set()
    say(f"stopping: running requests may end within {end.drain_timeout:g} s; signal again to stop now")


def _most(drain_timeout: float) -> float:
    """Seconds from the first signal until a fleet that has not ended is ended."""
    return drain_timeout + HARD_EXIT_AFTER


def _arm_hard_exit(seconds: float) -> None:
    """The last resort, in a thread of its own: an event loop that hangs cannot end itself."""
    timer = threading.Timer(seconds, os._exit, args=(HARD_EXIT_CODE,))
    timer.daemon = True
    timer.start()
