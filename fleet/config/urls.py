"""Server URLs: what is accepted, and when two of them mean the same server."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

from fleet.netcheck import address_of

LONGEST_URL: Final = 2048
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Underscores are no letters of a host name, but container networks are full of them.
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


def clean_url(url: str) -> str:
    """The URL as it is kept: checked, without a trailing slash. Raises `ValueError` with a sentence for the user.

    The sentence never repeats the URL, which may carry a password.
    """
    parts = _checked(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


@lru_cache(maxsize=4096)  # with a thousand servers, each is compared with all the others
def normalise_url(url: str) -> str:
    """The one spelling for all URLs that mean the same server. Raises `ValueError` as `clean_url` does.

    Lower-case host, port always there, `localhost` is `127.0.0.1`, no trailing slash: to compare, not to connect.
    """
    parts = _checked(url)
    host = _normal_host(parts.hostname or "")
    port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost may point anywhere: not loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def is_host(host: str) -> bool:
    """Whether `host` is an IP address or a host name, with nothing around it."""
    return _address(host) is not None or (HOST_NAME.fullmatch(host) is not None and ".." not in host)


def _checked(url: str) -> SplitResult:
    if len(url) > LONGEST_URL:
        raise ValueError(f"must be a URL of at most {LONGEST_URL} characters")
    # Before splitting: urlsplit quietly drops tabs and line ends.
    if not re.fullmatch(r"[!-\[\]-~]*", url):
        raise ValueError("may hold visible ASCII characters only, and no backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is no valid URL: check brackets and port (1 to 65535)") from None
    _check_parts(parts, port, url)
    return parts


def _check_parts(parts: SplitResult, port: int | None, url: str) -> None:
    if parts.scheme not in DEFAULT_PORTS or not url[len(parts.scheme) :].startswith("://"):
        raise ValueError("must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user or password; use api_key")
    if "?" in url or "#" in url:
        raise ValueError("must not carry a query (?) or a fragment (#)")
    if not is_host(parts.hostname or ""):
        raise ValueError("needs a valid host name or address, such as http://127.0.0.1:11434")
    if port == 0:
        raise ValueError("needs a port from 1 to 65535")


def _normal_host(host: str) -> str:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return f"[{address.compressed}]"
    if isinstance(meant := address_of(host), ipaddress.IPv4Address):  # 127.1 and 2130706433 are 127.0.0.1 too
        return str(meant)
    name = host.lower().rstrip(".")
    return "127.0.0.1" if name == "localhost" else name


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
