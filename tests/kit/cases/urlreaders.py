"""Everybody who reads a server's URL, asked at once; and URLs such as people and attackers write them.

`python -m tests.kit.cases.urlreaders 100000` holds the validator against all of them, on so many URLs.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import ssl
import sys
import time
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import httpx

from actors.upstream.address import BackendAddress, server_name
from actors.upstream.control_client import OllamaClient
from fleet.config import BackendsSection, ServerSpec, normalise_url
from fleet.config.schema.urls import clean_url
from fleet.security.backend_addresses import refusal

_HOSTS: Final = (
    *(
        "localhost",
        "gpu1",
        "my_box",
        "ollama.svc.cluster.local",
        "A.Example",
        "a.example.",
        "r3---sn.x",
        "1a2b3c4d5e6f",
    ),
    *("10.0.0.5", "10.0.0.256", "192.168.1.300", "010.0.0.5", "0x7f.1", "127.1", "2130706433", "1.2.3.4.", "1.2.3.4.5"),
    *("foo.256", "0.0.0.0", "255.255.255.255", "169.254.169.254", "-a", "a-", "a-.b", "_a", "a..b", ".a", "a."),
    *("xn--a", "a.xn--a", "xn--mnchen-3ya.de", "xn--ls8h.la", "XN--NXASMQ6B", "xn--", "münchen.de", "٣.٣.٣.٣", "ａ"),
    *(
        "x" * 63,
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "",
        "%61",
        "a%20b",
        "a b",
        "user@a",
        "u:p@a",
        "a\\b",
        "a\x00b",
        "a|b",
    ),
    *("[::1]", "[::1", "::1", "[::ffff:10.0.0.1]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1%25zzz]", "[v1.x]", "[]"),
    *("[fe80::1%25" + "z" * 70 + "]", "[fe80::1%2525x]", "[10.0.0.1]", "[::1]11434", "[2001:DB8::0]", "[::]", "[::1]]"),
)
_PORTS: Final = (
    *(
        "",
        ":11434",
        ":80",
        ":65535",
        ":",
        ":443",
        ":0",
        ":65536",
        ":+80",
        ":-1",
        ": 80",
        ":00080",
        ":８０",
        ":80:80",
        ":x",
    ),
    *(":1e3", ":0x50", ":99999999999", ":80\n"),
)
_PATHS: Final = (
    *(
        "",
        "/",
        "/base",
        "/base/path/",
        "//",
        "/a//b",
        "/../x",
        "/./x",
        "/%2e%2e/x",
        "/%zz",
        "/%",
        "/a%20b",
        "/ü",
        "/a b",
    ),
    *(
        "/v1",
        "/api/",
        "?x=1",
        "/x?y",
        "#z",
        "/;p=1",
        '/{x}|^`"<>',
        "/\\",
        "/a:b@c",
        "/\x7f",
        "/..;/",
        "/~!$&'()*+,=-._",
    ),
)
_SCHEMES: Final = ("http://", "https://") * 5 + (
    "HTTP://",
    "http:/",
    "http:",
    "//",
    "",
    "ftp://",
    "http:///",
    " http://",
)
_CHARACTERS: Final = "abz019.:-_%[]@/\\?#~+ \t\n\x00\x7f éß１。.⁄℀ＡxnXN=&;,'\"<>{}|^`"


def made(dice: random.Random) -> str:
    """A URL of good and bad parts, and now and then mutated."""
    parts = [dice.choice(every[: dice.choice((4, len(every)))]) for every in (_SCHEMES, _HOSTS, _PORTS, _PATHS)]
    url = "".join(parts)
    for _ in range(dice.choice((0, 0, 0, 0, 0, 1, 1, 2, 5))):
        at = dice.randrange(len(url) + 1)
        kind = dice.randrange(4)
        if kind == 0:
            url = url[:at] + dice.choice(_CHARACTERS) + url[at:]
        elif kind == 1:
            url = url[:at] + url[at + 1 :]
        elif kind == 2:
            url = url[:at] + dice.choice(_CHARACTERS) + url[at + 1 :]
        else:
            url = url[:at] + dice.choice(_HOSTS)[:10] + url[at:]
    return url


def accepted(url: str) -> str | None:
    """What is kept of a URL; None if it is refused."""
    try:
        return clean_url(url)
    except ValueError:
        return None


def check(kept: str) -> None:
    """Fails unless everybody who will use an accepted URL takes it, and reads the same in it."""
    assert clean_url(kept) == kept, "what is kept is accepted again, unchanged"
    end = BackendAddress.parse(kept)
    _control_client(kept, end)
    _resolver(end)
    _context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name(end.host))
    split = urlsplit(kept)
    assert (split.hostname or "") == end.host, "the rules for addresses look at the host that is dialled"
    assert not split.username
    assert not split.query
    refusal(kept, BackendsSection())
    normal = normalise_url(kept)
    assert normalise_url(normal) == normal
    for text in (end.base_path, end.host_header.decode("ascii"), normal):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text


def _control_client(kept: str, end: BackendAddress) -> None:
    OllamaClient(ServerSpec.model_validate({"id": "a", "url": kept}))
    asked = _http().build_request("GET", f"{kept}/api/tags").url
    assert asked.host, "reading it may fail by itself"
    assert asked.raw_host.decode("ascii").lower() == end.host.lower()
    assert (asked.port or (443 if asked.scheme == "https" else 80)) == end.port
    assert (asked.scheme == "https") == end.tls
    assert asked.raw_path.decode("ascii") == end.base_path + "/api/tags"


@cache
def _http() -> httpx.Client:
    """Another reader of URLs, which is none of ours."""
    return httpx.Client(trust_env=False, verify=False)


def _resolver(end: BackendAddress) -> None:
    """Without asking any name server: a name that sockets take for an address must be that address as it is written."""
    try:
        rows = socket.getaddrinfo(end.host.partition("%")[0], end.port, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name: whether it exists is another matter
        end.host.encode("idna")
        return
    found = str(rows[0][4][0])
    assert ipaddress.ip_address(found) == ipaddress.ip_address(end.host.partition("%")[0])


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def main() -> None:
    """Says how many were accepted; fails at the first that somebody reads otherwise."""
    number, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    dice, began, good = random.Random(seed), time.perf_counter(), 0
    for _ in range(number):
        url = made(dice)
        kept = accepted(url)
        if kept is not None:
            good += 1
            try:
                check(kept)
            except Exception as error:
                raise SystemExit(f"{url!r}, kept as {kept!r}: {type(error).__name__}: {error}") from error
    sys.stdout.write(
        f"{number} URLs, seed {seed}: {good} accepted and read alike, {time.perf_counter() - began:.0f} s\n"
    )


if __name__ == "__main__":
    main()
