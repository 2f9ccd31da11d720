"""Reading anew, while it runs, what a fleet was started with: configuration, keys, certificate."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import trio

from actors.config import key_file
from actors.config.tls import TlsUnusable, server_context

if TYPE_CHECKING:
    from actors.system import System
    from fleet.config import Config
    from web.admin.kit.context import House
    from web.edge.acceptor import Edge

log = logging.getLogger("fleet.serve")


def secured(config: Config) -> ssl.SSLContext | None:
    """What the listeners need for TLS, None without. Raises TlsUnusable."""
    files = config.server.tls
    return server_context(files.certificate, files.key) if files.enabled else None


async def renew_all(house: House) -> None:
    """Once. What cannot be used changes nothing, and is told. Cancelled: the same."""
    log.info("reading configuration, keys and certificates anew")
    await house.settings.renew()
    if path := house.system.config.security.keys_file:
        await key_file.refresh(path)
    log.info("everything was read anew")


async def renew_certificate(edge: Edge, system: System) -> None:
    """For connections that come from here on. Files that cannot be used change nothing."""
    try:
        edge.tls = await trio.to_thread.run_sync(secured, system.config)
        log.info("the certificate was read anew")
    except TlsUnusable as error:
        log.error("the certificate stays as it was: %s", error)
