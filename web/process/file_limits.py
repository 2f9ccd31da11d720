"""File descriptors: as many as the system gives us, and how many clients they are enough for."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from fleet.config import Config

log = logging.getLogger("fleet.serve")

_PER_CLIENT: Final = 3
"""The client's own connection and both ends of one to the app; a hot request needs two."""
_PER_SERVER: Final = 8
"""Connections of probes, and some that wait for the next request."""
_RESERVE: Final = 256
"""Ports, files, logs, the app's idle connections, and clients that are being turned away."""
_MODEST: Final = 10_240
"""What macOS allows although its hard limit claims to be none."""
_UNLIMITED: Final = 1 << 30


def room(descriptors: int, servers: int) -> int:
    """How many client connections so many descriptors are enough for; at least one."""
    left = descriptors - min(_RESERVE, descriptors // 2) - servers * _PER_SERVER
    return max(1, left // _PER_CLIENT)


def most_clients(config: Config) -> int:
    """How many clients to let in: `limits.connections`, or what the system has descriptors for.

    Who has asked for more than that is warned; a default that is out of reach is not worth a warning.
    """
    wanted, descriptors = config.limits.connections, raised()
    possible = room(descriptors, len(config.servers))
    if possible < wanted:
        log.log(
            logging.WARNING if "connections" in config.limits.model_fields_set else logging.INFO,
            "%d file descriptors are enough for %d client connections, not for the %d of limits.connections; "
            "raise the hard limit (ulimit -n, LimitNOFILE)",
            descriptors,
            possible,
            wanted,
        )
    return min(wanted, possible)


def raised() -> int:
    """Raise this process's soft limit of open files to the hard one where that is allowed; the limit afterwards."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return _UNLIMITED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED
    wanted = max(soft, _MODEST) if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
