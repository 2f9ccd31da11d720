"""What the front end holds in copies, brought up to date: when the configuration changes, and when all is read anew."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import trio

from actors.config import disk
from actors.config.tls import TlsUnusable, secured
from actors.state.config_ref import Follower
from actors.system import System
from fleet.common.errors import DiskTimeout
from fleet.config import Config
from web.admin.kit.context import AppContext
from web.asgi.quart_connection import TERMS_KEY
from web.edge.acceptor import Edge
from web.process import log_format
from web.process.bind import DEAD_PEER, Bound

log = logging.getLogger("fleet.serve")

_MARGIN: Final = 30.0
"""Seconds beyond `timeouts.write` in which the system leaves a client alone that does not read: ours to judge first."""


def patience(config: Config) -> float:
    """Seconds after which the system gives up on a client that acknowledges nothing."""
    return max(DEAD_PEER, config.timeouts.write + _MARGIN)


def follower(apps: Sequence[Any], edge: Edge, listeners: Sequence[Bound]) -> Follower:
    """What to call when the configuration has changed. It holds for what comes next: bodies, requests, connections."""

    def follow(before: Config, config: Config) -> None:
        edge.follow(before, config)
        for app in apps:
            app.config["MAX_CONTENT_LENGTH"] = config.limits.body_bytes
            app.config[TERMS_KEY] = edge.terms
        if config.logging != before.logging:
            log_format.adjust(config.logging.level, config.logging.format)
        if patience(config) != patience(before):
            for bound in listeners:
                bound.give_up_after(patience(config))

    return follow


async def renew_all(context: AppContext) -> None:
    """Once. What cannot be used changes nothing, and is told; cancelled, what is read by then is kept."""
    log.info("reading configuration, keys and certificates anew")
    await context.settings.renew()
    if path := context.system.config.security.keys_file:
        with trio.move_on_after(disk.PATIENCE) as late:
            await context.system.keys.refresh(path)
        if late.cancelled_caught:
            log.error("the file of keys could not be read within %g s: the keys stay as they were", disk.PATIENCE)
    log.info("everything was read anew")


async def renew_certificate(edge: Edge, system: System, threads: disk.FileThreads) -> None:
    """For connections that come from here on. Files that cannot be used change nothing."""
    try:
        edge.renew_certificate(await threads.do(secured, system.config))
        log.info("the certificate was read anew")
    except (TlsUnusable, DiskTimeout) as error:
        log.error("the certificate stays as it was: %s", error)
