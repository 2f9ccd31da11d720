"""What a service manager (systemd, `Type=notify`) is told of a start and an end, if one has asked for it."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

log = logging.getLogger("fleet.serve")

_WHERE: Final = "NOTIFY_SOCKET"


def ready() -> None:
    """The ports are open."""
    _tell("READY=1")


def stopping(within: float) -> None:
    """The end has begun and takes at most so many seconds, which the manager then grants."""
    _tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within * 1e6)}")


def _tell(words: str) -> None:
    """One datagram, without waiting. A manager that cannot be reached is a warning: it may end us for our silence."""
    address = os.environ.get(_WHERE, "")
    if not address.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(words.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    except (OSError, ValueError) as error:
        log.warning("the service manager cannot be told %s: %s", words.split("=", 1)[0], error)
