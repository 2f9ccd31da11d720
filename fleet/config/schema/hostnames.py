"""Host names and addresses: which ones everybody who will use them understands, and understands in one way.

A host is looked up by sockets (which encode it by IDNA 2003), read by the HTTP client (IDNA 2008, strict addresses),
sent in Host (which a loopback Ollama holds against a list), and named to TLS. What one of them refuses, or reads
otherwise, is refused here, before anything is kept.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import idna

from fleet.security.backend_addresses import address_of

LONGEST: Final = 253
LONGEST_LABEL: Final = 63
SAYS: Final = "needs a valid host name or address, such as http://127.0.0.1:11434"
# Underscores are no letters of a host name, but container networks are full of them.
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_NUMBERS: Final = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)(?:\.(?:[0-9]+|0[xX][0-9A-Fa-f]*))*\.?")
_OCTAL: Final = re.compile(r"(?:^|\.)0[0-9]")
_ZONE: Final = re.compile(r"(?!25)[A-Za-z0-9._-]{1,15}")  # %25 is how URLs write the % before it
_ENCODED: Final = "xn--"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address(host: str) -> Address | None:
    """The address that is written, in its one proper spelling (an IPv6 zone may follow); None for anything else."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def plain(host: str) -> str:
    """The host as everybody reads it: an address in a spelling of old (127.1, 0x7f000001) in the one of today."""
    meant = address_of(host) if _NUMBERS.fullmatch(host) else None
    return host if meant is None else str(meant)


def fault(host: str) -> str:
    """Why not everybody can use this host, as the end of a sentence about it; empty if all can use `plain(host)`."""
    if ":" in host:
        return _six(host)
    if address(host) is not None:
        return ""
    if not _NAME.fullmatch(host) or ".." in host or host.startswith("."):
        return SAYS
    if _NUMBERS.fullmatch(host):
        return _numbers(host)
    return _name(host)


def _six(host: str) -> str:
    bare, mark, zone = host.partition("%")
    found = address(bare)
    if not isinstance(found, ipaddress.IPv6Address):
        return "is no valid URL: check brackets and port; only an IPv6 address stands in brackets"
    if mark and not found.is_link_local:
        return "has a zone (%), which only link-local addresses (fe80::/10) have"
    if mark and not _ZONE.fullmatch(zone):
        return "has a zone (%) that is no name of a network interface, such as %eth0"
    return ""


def _numbers(host: str) -> str:
    """Zeros in front are octal to some, nothing to others, and forbidden to the HTTP client."""
    meant = address_of(host)
    if meant is None:
        return f"{SAYS}: an address has four numbers from 0 to 255"
    if _OCTAL.search(host):
        return f"has an address with zeros in front, which some read as {meant}: write it without"
    return ""


def _name(host: str) -> str:
    labels = host.removesuffix(".").split(".")
    if len(host.removesuffix(".")) > LONGEST or any(len(label) > LONGEST_LABEL for label in labels):
        return f"{SAYS}: at most {LONGEST} characters, {LONGEST_LABEL} between two dots"
    encoded = [label for label in labels if label.lower().startswith(_ENCODED)]
    if labels[0] in encoded:
        encoded.append(host)  # the HTTP client decodes such a name as a whole
    try:
        for label in encoded:
            idna.decode(label)
    except UnicodeError:
        return f"{SAYS}: it begins with {_ENCODED}, but stands for no international name"
    return ""
