"""Server URLs: what is accepted, and when two of them mean the same server."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final, NamedTuple

from fleet.config.schema.hostnames import SAYS, address, fault, plain
from fleet.security.backend_addresses import address_of

LONGEST_URL: Final = 2048
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
OLLAMA_PORT: Final = 11434
_ROUTES: Final = ("v1", "api")
_VISIBLE: Final = re.compile(r"[!-\[\]-~]*")
_PLACE: Final = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[^\[\]]*))?")
_USER: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_DOTS: Final = re.compile(r"/(?:\.|%2[Ee]){1,2}(?:/|$)")


class UrlParts(NamedTuple):
    """A URL taken apart. `host` is without brackets, its zone after a plain %; `port` is None if none was written."""

    scheme: str
    host: str
    port: int | None
    tail: str
    """The port as it was written, with its colon."""
    path: str


def clean_url(url: str) -> str:
    """The URL as it is kept: checked, without a trailing slash. Raises `ValueError` with a sentence for the user.

    What is accepted, everybody who will use it accepts and reads alike: the data plane, the control client, the
    resolver, TLS. The sentence never repeats the URL, which may carry a password.
    """
    parts = _taken_apart(url)
    if wrong := fault(parts.host):
        raise ValueError(wrong)
    host = f"[{parts.host}]" if ":" in parts.host else plain(parts.host)
    return f"{parts.scheme}://{host}{parts.tail}{parts.path.rstrip('/')}"


@lru_cache(maxsize=4096)  # with a thousand servers, each is compared with all the others
def normalise_url(url: str) -> str:
    """The one spelling for all URLs that mean the same server. Raises `ValueError` as `clean_url` does.

    Lower-case host, port always there, `localhost` is `127.0.0.1`, no trailing slash: to compare, not to connect. Knows
    addresses in spellings of old, too, which `clean_url` refuses.
    """
    parts = _taken_apart(url)
    if address_of(parts.host) is None and (wrong := fault(parts.host)):
        raise ValueError(wrong)
    host = _normal_host(parts.host)
    port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def hint(url: str) -> str:
    """What of an accepted URL is probably not what was meant, as the end of a sentence; empty if nothing is."""
    last = url.rpartition("/")[2].lower()
    if last not in _ROUTES:
        return ""
    return f"ends in /{last}, which is where Ollama's routes begin: leave it out, if Ollama itself is there"


def check_receiver(url: str, *, plain: bool) -> None:
    """Whether everybody who will send something to this URL can. Raises `ValueError` with a sentence without the URL.

    It may have a user and a query, unless it is `plain`: then something is put behind its path, and it is shown.
    """
    if len(url) > LONGEST_URL or not _VISIBLE.fullmatch(url):
        raise ValueError(f"may hold at most {LONGEST_URL} visible ASCII characters, and no backslash")
    scheme, mark, rest = url.partition("://")
    written = rest.partition("?")[0]
    user, at, place = written.partition("/")[0].rpartition("@")
    if scheme.lower() not in DEFAULT_PORTS or not mark:
        raise ValueError("must start with http:// or https://")
    if "#" in url or (plain and (at or "?" in url)):
        raise ValueError(f"must not carry a fragment (#){', a query (?), a user or a password' if plain else ''}")
    if at and not _USER.fullmatch(user):
        raise ValueError("has a user or password with characters that must be written as %XX")
    parts = _placed(scheme.lower(), place, "")
    if wrong := fault(parts.host):
        raise ValueError(wrong)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost may point anywhere: not loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    found = address(host)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found is not None and found.is_loopback


def is_host(host: str) -> bool:
    """Whether `host` is an IP address or a host name, with nothing around it."""
    return fault(host) == ""


def _taken_apart(url: str) -> UrlParts:
    if len(url) > LONGEST_URL:
        raise ValueError(f"must be a URL of at most {LONGEST_URL} characters")
    if not _VISIBLE.fullmatch(url):
        raise ValueError("may hold visible ASCII characters only, and no backslash")
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS or not mark:
        raise ValueError("must start with http:// or https://")
    written, slash, path = rest.partition("/")
    if "@" in re.split(r"[?#]", written, maxsplit=1)[0]:
        raise ValueError("must not carry a user or password; use api_key")
    if "?" in rest or "#" in rest:
        raise ValueError("must not carry a query (?) or a fragment (#)")
    return _placed(scheme, written, slash + path)


def _placed(scheme: str, written: str, path: str) -> UrlParts:
    found = _PLACE.fullmatch(written)
    if found is None:
        hint = ": an IPv6 address needs them, such as http://[::1]:11434" if written.count(":") > 1 else ""
        raise ValueError(f"is no valid URL: check brackets and port (1 to 65535){hint}")
    host = found["name"]
    if host is None:
        host = re.sub("%(?:25)?", "%", found["six"], count=1)  # RFC 6874 writes the % of a zone so, sockets do not
        if ":" not in host:
            raise ValueError("is no valid URL: check brackets; only an IPv6 address stands in them")
    elif not host:
        raise ValueError(SAYS)
    port = _port(found["port"])
    if not _PATH.fullmatch(path):
        raise ValueError("has a path with characters that must be written as %XX, such as %20")
    if _DOTS.search(path):
        raise ValueError("must not have . or .. in its path: write where they lead")
    return UrlParts(scheme, host, port, "" if found["port"] is None else f":{found['port']}", path)


def _port(text: str | None) -> int | None:
    """None if there is none; nothing behind the colon is none, too."""
    if not text:
        return None
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise ValueError("is no valid URL: it needs a port from 1 to 65535")
    return int(text)


def _normal_host(host: str) -> str:
    found = address(host)
    if isinstance(found, ipaddress.IPv6Address):
        return f"[{found.compressed}]"
    if isinstance(meant := address_of(host), ipaddress.IPv4Address):  # 127.1 and 2130706433 are 127.0.0.1 too
        return str(meant)
    name = host.lower().rstrip(".")
    return "127.0.0.1" if name == "localhost" else name
