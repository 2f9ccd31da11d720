"""By which names a machine is local: Ollama's rule against DNS rebinding, and names without a dot besides.

That is good enough for using models. Whoever shares a network with us may announce names under `.local` (mDNS) and
point them anywhere, so for what changes or administers the fleet only names count that cannot mean another machine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

_ENDINGS: Final = (".localhost", ".local", ".internal")
_LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_6: Final = ipaddress.IPv6Address("::1")
_LABEL = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}")
_BRACKETED = re.compile(r"\[([^\]]+)\](?::[0-9]*)?")
_WITH_PORT = re.compile(r"([^:]*):[0-9]*")


def is_local(host: str, names: Iterable[str] = ()) -> bool:
    """Whether a Host (with or without a port) can only be meant for this machine or its own network.

    `names` come on top, in lower case. No Host at all is fine: browsers always send one. Never raises.
    """
    name = _bare(host)
    # A name of one label belongs to whoever runs this network; a web page has a dot in its own.
    if not host or _LABEL.fullmatch(name) or name.endswith(_ENDINGS) or name in names:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def is_loopback(host: str, names: Iterable[str] = ()) -> bool:
    """Whether a Host (with or without a port) means this machine and nothing else: localhost, 127.0.0.0/8, ::1.

    `names` come on top, in lower case. No Host at all is fine, as in `is_local`. Never raises.
    """
    name = _bare(host)
    if not host or name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address in _LOOPBACK if address.version == 4 else address == _LOOPBACK_6


def _bare(host: str) -> str:
    found = _BRACKETED.fullmatch(host) or _WITH_PORT.fullmatch(host)
    return (found[1] if found else host).lower().removesuffix(".")
