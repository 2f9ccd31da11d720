"""Which addresses a backend may have: what a URL must not point our requests at. No IO: names are resolved elsewhere.

The addresses where clouds hand out credentials to whoever asks from inside are refused, in every disguise that a
resolver or a socket would see through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from fleet.security.client_address import Address, Network, network_of

_METADATA_NAMES: Final = frozenset(
    (
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
    )
)
_METADATA: Final = frozenset(
    ip_address(each)
    for each in (
        "169.254.169.254",  # nearly all clouds
        "169.254.170.2",  # containers of AWS
        "169.254.170.23",
        "169.254.169.253",
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
_EMBEDDING: Final = tuple(IPv6Network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))
"""NAT64, the same within a network, IPv4 translated, and the oldest way of writing IPv4 as IPv6."""
_PART = re.compile(r"0[xX]0*[0-9a-fA-F]{0,8}|0*[0-9]{1,12}")  # any number of zeros in front, as inet_aton takes them
_METADATA_SAYS: Final = "is where a cloud hands out credentials to its machines, never an Ollama server"


class AllowedBackends(Protocol):
    """The part of the configuration that says where backends may live."""

    @property
    def allow_private(self) -> bool: ...

    @property
    def allow_link_local(self) -> bool: ...

    @property
    def allowed(self) -> Sequence[str]: ...


def refusal(url: str, section: AllowedBackends) -> str | None:
    """Why a (well-formed) URL must not be a server's, as the end of a sentence; None if nothing speaks against it.

    Judges what is written. A name is judged by its addresses too, once somebody has resolved it: `refused_addresses`.
    """
    host = _name(urlsplit(url).hostname or "")
    if host in _METADATA_NAMES:
        return _METADATA_SAYS
    address = address_of(host)
    if address is not None:
        return _refused(address, section) or (None if _listed(address, section) else _not_listed(host))
    if host == "localhost" and not section.allow_private:
        return "is a private address, which security.backends.allow_private: false refuses"
    names, networks = split_allowed(section.allowed)
    # as long as networks are allowed, only its addresses can tell
    return None if not section.allowed or host in names or networks else _not_listed(host)


def refused_addresses(host: str, addresses: Sequence[str], section: AllowedBackends) -> str | None:
    """Why a name with these addresses must not be used: one bad address is enough. None if all are fine."""
    named = not section.allowed or _name(host) in split_allowed(section.allowed)[0]
    for text in addresses:
        address = address_of(text)
        if address is None:
            continue
        if why := _refused(address, section):
            return f"has the address {address}, which {why}"
        if not named and not _listed(address, section):
            return f"has the address {address}, which is not in security.backends.allowed"
    return None


def address_of(host: str) -> Address | None:
    """The address that a host means without any resolver; None for a name.

    Plain, or in one of the spellings of old that sockets still take: 0x7f.1, 017700000001, 2130706433.
    """
    bare = host.partition("%")[0].removesuffix(".")
    try:
        return ip_address(bare)
    except ValueError:
        return _old_spelling(bare)


def split_allowed(allowed: Sequence[str]) -> tuple[frozenset[str], tuple[Network, ...]]:
    """The host names, and the networks, of `security.backends.allowed`."""
    return _split(tuple(allowed))


@lru_cache(maxsize=4)  # long lists are held against many servers
def _split(allowed: tuple[str, ...]) -> tuple[frozenset[str], tuple[Network, ...]]:
    networks: list[Network] = []
    names: set[str] = set()
    for each in allowed:
        try:
            networks.append(network_of(each))
        except ValueError:
            names.add(_name(each))
    return frozenset(names), tuple(networks)


def _name(host: str) -> str:
    return host.lower().rstrip(".")


def _not_listed(host: str) -> str:
    return f"is not in security.backends.allowed: {host[:100]}"


def _refused(address: Address, section: AllowedBackends) -> str | None:
    for each in _meant(address):
        if each in _METADATA:
            return _METADATA_SAYS
        if each.is_multicast or str(each) == "255.255.255.255":
            return "is an address of many machines, not of one"
        if each.is_link_local and not section.allow_link_local:
            return "is a link-local address, which needs security.backends.allow_link_local"
        if not (section.allow_private or each.is_link_local or each.is_global):
            return "is a private address, which security.backends.allow_private: false refuses"
    return None


def _listed(address: Address, section: AllowedBackends) -> bool:
    if not section.allowed:
        return True
    names, networks = split_allowed(section.allowed)
    return str(address) in names or any(each in network for network in networks for each in _meant(address))


def _meant(address: Address) -> Iterator[Address]:
    """The address, and every other one that it stands for: IPv4 wrapped in IPv6 in its various ways."""
    if isinstance(address, IPv4Address):
        yield address
        return
    wrapped = _wrapped(address)
    if wrapped is None:
        yield IPv6Address(int(address))  # without its zone
    elif address.ipv4_mapped is not None:
        yield wrapped
    else:
        yield from (IPv6Address(int(address)), wrapped)


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address.teredo:
        return address.teredo[1]
    plain = IPv6Address(int(address))
    if int(plain) > 1 and any(plain in network for network in _EMBEDDING):  # not :: and ::1
        return IPv4Address(int(plain) & 0xFFFF_FFFF)
    return None


def _old_spelling(text: str) -> IPv4Address | None:
    """As inet_aton reads it: one to four parts, decimal, octal or hexadecimal; the last fills what is left."""
    parts = text.split(".")
    if len(parts) > 4 or not all(_PART.fullmatch(part) for part in parts):
        return None
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        return None
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (5 - len(numbers)):
        return None
    whole = last
    for place, number in enumerate(first):
        whole |= number << (8 * (3 - place))
    return IPv4Address(whole)


def _number(part: str) -> int:
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if len(part) > 1 and part.startswith("0") else int(part)
