"""Who the client is when a reverse proxy stands between: its address for logs, limits and the audit.

X-Forwarded-For is a claim. Only proxies that the operator named are believed, and only as far as each was itself named
by one that is believed: nobody else can choose by which address they are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORWARDED: Final = b"x-forwarded-for"
MOST_ENTRIES: Final = 32
"""Entries of the list that are looked at, from the right; no honest chain of proxies is longer."""
_LONGEST: Final = 64
_WHAT: Final = "must be an IP address or a network such as 10.0.0.7, 10.0.0.0/8 or fd00::/8, not a host name"
_NETWORK = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?")
# Three spellings of one address: bare, with a port, and in the brackets that IPv6 needs to have a port.
_ENTRY = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}|([0-9A-Fa-f:.]+)")
_MAPPED_BITS: Final = 96


def network_of(text: str) -> Network:
    """The network (or single address) that `text` names. Raises `ValueError` with a sentence for the user."""
    try:
        if not _NETWORK.fullmatch(text):
            raise ValueError
        network = ip_network(text, strict=False)
        written = ip_address(text.partition("/")[0])
    except ValueError:
        raise ValueError(_WHAT) from None
    if network.network_address != written:
        # 10.0.0.7/8 is one machine or sixteen million: whoever is believed must not be guessed
        raise ValueError(f"has bits beyond its prefix: {network} or {written}?")
    return _unmapped_network(network)


def spelled(network: Network) -> str:
    """The one spelling of a network; a single address goes without its prefix."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed; made once per configuration, asked for every request."""

    __slots__ = ("_any", "_single", "_wide")

    def __init__(self, networks: Iterable[str]) -> None:
        parsed = [network_of(each) for each in networks]
        self._any = bool(parsed)
        self._single = frozenset(each.network_address for each in parsed if each.prefixlen == each.max_prefixlen)
        self._wide = tuple(each for each in parsed if each.prefixlen != each.max_prefixlen)

    def client_of(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """The client's address: `peer`, or what the trusted proxies say, the nearest that is not one of them.

        `forwarded` holds the values of all X-Forwarded-For fields, in order. What is no address ends the search at
        the last good one, because whatever stands left of it is vouched for by nobody. Never raises.
        """
        if not self._any or not forwarded or not self._trusts(_address(peer.partition("%")[0])):
            return peer
        client = peer
        for entry in _from_the_right(forwarded):
            address = _entry(entry)
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def client_in(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """`client_of` for a whole request head, which is not looked at while nobody is trusted."""
        if not self._any:
            return peer
        return self.client_of(peer, [value for name, value in headers if name.lower() == FORWARDED])

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and (address in self._single or any(address in wide for wide in self._wide))


def _from_the_right(forwarded: Sequence[bytes]) -> Iterator[bytes]:
    """The last entries of the fields read as one list, last first; long lists are not taken apart further."""
    left = MOST_ENTRIES
    for value in reversed(forwarded):
        found = value.rsplit(b",", left)[-left:]
        yield from reversed(found)
        left -= len(found)
        if not left:
            return


def _entry(entry: bytes) -> Address | None:
    entry = entry.strip(b" \t")
    # Checked by hand first: `ip_address` takes a zone with any characters in it, which would end up in the logs.
    found = _ENTRY.fullmatch(entry) if len(entry) <= _LONGEST else None
    return _address((found[1] or found[2] or found[3]).decode("ascii")) if found else None


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _unmapped_network(network: Network) -> Network:
    """::ffff:10.0.0.0/104 is 10.0.0.0/8."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
