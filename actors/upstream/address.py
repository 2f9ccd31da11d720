"""Where a backend lives, read from its URL once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PRINTABLE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class BackendAddress:
    """A backend's address. `base_path` has no trailing slash; `host_header` is ready for the wire."""

    host: str
    port: int
    tls: bool
    base_path: str
    host_header: bytes

    @classmethod
    def parse(cls, url: str) -> BackendAddress:
        """Read `http[s]://host[:port][/base/path]`.

        Raises ValueError, with a text for the operator, for anything else (credentials, a query, another scheme).
        """
        if not _PRINTABLE.fullmatch(url.strip()):
            raise ValueError(f"not a URL: {url!r}")
        parts = urlsplit(url.strip())
        port = _port(parts)
        host = parts.hostname or ""
        path = parts.path.rstrip("/")
        return cls(host, port, parts.scheme == "https", path, _host_header(host, port, parts.scheme))

    @property
    def address(self) -> str:
        """`host:port` for messages and logs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def server_name(host: str) -> str:
    """What TLS calls a host: certificates know neither the zone of an address nor the dot behind a whole name."""
    return host.partition("%")[0].removesuffix(".")


def _port(parts: SplitResult) -> int:
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"a backend URL starts with http:// or https:// and a host: {parts.geturl()!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a backend URL has no credentials, query or fragment")
    port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    if port == 0:
        raise ValueError("port 0 is no port")
    return port


def _host_header(host: str, port: int, scheme: str) -> bytes:
    name = host
    if ":" in host:
        address = host.partition("%")[0]  # a zone means something on this machine only
        name = f"[{ipaddress.IPv6Address(address)}]"
    text = name if port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"
    return text.encode("ascii")
