"""Which header fields cross the proxy, in either direction, and the few that mean something to us.

Field lists are untrusted: names and values that could split a header are dropped, never repaired.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from fleet.common.ids import RequestId
from fleet.protocol.call import Headers
from fleet.security.api_keys import is_credential_name

Field = tuple[bytes, bytes]

# RFC 9110 7.6.1, and the old names that proxies still meet.
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_NOT_UPSTREAM: Final = _HOP_BY_HOP | {
    b"host",  # the upstream's own: a loopback Ollama answers 403 to a foreign Host
    b"content-length",  # whoever writes the request knows the length
    b"expect",  # answered by the front end
    b"origin",  # the upstream would apply its own CORS rules
    b"referer",
    b"cookie",  # the dashboard's cookies are none of a backend's business
    b"authorization",  # meant for us
    b"x-api-key",
    b"api-key",
    b"accept-encoding",  # the tap cannot read compressed bytes, and Ollama does not compress anyway
    b"x-priority",
    b"x-request-id",  # set anew, from the sane one
    b"forwarded",  # the client's word on where it comes from: a fleet behind us, which trusts us, would believe it
    b"x-real-ip",
}
_NOT_DOWNSTREAM: Final = _HOP_BY_HOP | {
    b"date",  # the front end writes its own
    b"server",
    b"set-cookie",  # one backend's cookie must not follow a client to the next
    b"location",  # a client that goes there takes its key and prompt along
    b"refresh",
    b"www-authenticate",  # a backend asks the fleet for that, never the client
    b"alt-svc",  # statements about a connection that is not the client's
    b"strict-transport-security",
    b"x-request-id",
}
_NOT_UPSTREAM_PREFIXES: Final = (b"proxy-", b"x-fleet-", b"access-control-", b"x-forwarded-")
_NOT_DOWNSTREAM_PREFIXES: Final = (
    b"proxy-",
    b"x-fleet-",
    b"access-control-",  # CORS is answered by us
    b"x-ratelimit-",  # a server's limit is for the whole fleet
)

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE = re.compile(rb"[\x00\r\n]")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,9}")
_WORDS: Final = {b"low": -5, b"normal": 0, b"high": 5}
HOP: Final = b"x-fleet-hop"
MOST_HOPS: Final = 8
"""Fleets may stand behind fleets, but not endlessly."""
LOWEST_PRIORITY: Final = -10
HIGHEST_PRIORITY: Final = 10


def field(headers: Headers, name: bytes) -> bytes | None:
    """The first field of this (lower-case) name, trimmed; None if there is none."""
    for key, value in headers:
        if key == name or key.lower() == name:
            return value.strip()
    return None


def hops(headers: Headers) -> list[bytes]:
    """The fleets this request has come through, as they named themselves."""
    return [hop.strip() for hop in (field(headers, HOP) or b"").split(b",") if hop.strip()]


def connection_fields(headers: Headers) -> frozenset[bytes]:
    """The names of fields that are about one connection alone and are never passed on by any proxy."""
    return _HOP_BY_HOP | {b"proxy-connection"} | frozenset(_named_by_connection(list(headers)))


class ForwardedHeaders(NamedTuple):
    """What of a client's header fields goes on to a backend: as complete lines, and the fleets they came through."""

    lines: bytes
    hops: tuple[bytes, ...]


def forwarded_headers(headers: Headers, is_secret: Callable[[bytes], bool] = lambda value: False) -> ForwardedHeaders:
    """Work out once what every attempt of a request sends. A field that holds a credential is not passed on.

    Which those are, names tell, and `is_secret` for what is in a field of any other name.
    """
    kept = [
        (name, value)
        for name, value in _pass(headers, _NOT_UPSTREAM, _NOT_UPSTREAM_PREFIXES)
        if not (is_credential_name(name) or is_secret(value) or is_secret(name))
    ]
    return ForwardedHeaders(b"".join([b"%b: %b\r\n" % pair for pair in kept]), tuple(hops(headers)))


def own_headers(seen: ForwardedHeaders, *, api_key: str, request_id: str, hop: bytes = b"") -> list[Field]:
    """What we say to a backend ourselves, beside the lines that are passed on.

    `api_key` is the backend's own key; the client's credentials are never passed on. `hop` names this fleet.
    """
    own = [(b"x-request-id", request_id.encode("ascii", "ignore"))]
    if hop:
        own.append((HOP, b",".join([*seen.hops[:MOST_HOPS], hop])))
    if api_key:
        own.append((b"authorization", b"Bearer " + _UNSAFE.sub(b"", api_key.encode("utf-8", "ignore"))))
    return own


def downstream_headers(headers: Headers, *, verbatim: bool = True, request_id: str = "") -> list[Field]:
    """What the client gets to see of a backend's header fields.

    `verbatim`: the body goes on byte for byte, so Content-Length stays true (if it is one plain number);
    otherwise it is dropped. `request_id` is added if given.
    """
    kept = _pass(headers, _NOT_DOWNSTREAM, _NOT_DOWNSTREAM_PREFIXES)
    lengths = [value for key, value in kept if key == b"content-length"]
    if lengths and not (verbatim and len(lengths) == 1 and lengths[0].strip().isdigit()):
        kept = [item for item in kept if item[0] != b"content-length"]
    if request_id:
        kept.append((b"x-request-id", request_id.encode("ascii", "ignore")))
    return kept


def request_id_of(headers: Headers, fallback: str) -> RequestId:
    """The client's own X-Request-Id if it is sane (1 to 128 of `A-Za-z0-9._:-`), else `fallback`."""
    own = field(headers, b"x-request-id")
    if own is not None and _REQUEST_ID.fullmatch(own):
        return RequestId(own.decode("ascii"))
    return RequestId(fallback)


def priority_of(headers: Headers) -> int:
    """X-Priority as a whole number from -10 to 10: a number is clamped, `low`, `normal`, `high` are -5, 0, 5.

    Anything else is 0: a bad hint is not worth refusing a request.
    """
    value = field(headers, b"x-priority")
    if value is None:
        return 0
    if _INTEGER.fullmatch(value):
        return max(LOWEST_PRIORITY, min(HIGHEST_PRIORITY, int(value)))
    return _WORDS.get(value.lower(), 0)


def _pass(headers: Headers, dropped: frozenset[bytes], prefixes: tuple[bytes, ...]) -> list[Field]:
    lowered = [(name.lower(), value) for name, value in headers]
    named = _named_by_connection(lowered)
    return [
        (name, value)
        for name, value in lowered
        if name not in dropped
        and name not in named
        and not name.startswith(prefixes)
        and _UNSAFE.search(value) is None
        and _NAME.fullmatch(name) is not None
    ]


def _named_by_connection(lowered: list[Field]) -> set[bytes] | tuple[()]:
    """Connection may name further fields that belong to this hop only."""
    lists = [value for name, value in lowered if name == b"connection"]
    return {name.strip().lower() for value in lists for name in value.split(b",")} if lists else ()
