"""Servers written short: a URL alone, `id=url`, an address as OLLAMA_HOST has it, entries without an id."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from fleet.config.loading.sourced_value import SourcedValue
from fleet.config.schema.hostnames import address
from fleet.config.schema.urls import OLLAMA_PORT, normalise_url

NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.*)", re.DOTALL)
_PLACE: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:.*)?", re.DOTALL)
_CONNECTABLE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_QUOTES: Final = "\"'"
_LONGEST: Final = 64


def url_of(text: str) -> str:
    """What Ollama's own clients make of OLLAMA_HOST: http and port 11434 unless said otherwise, this machine if empty.

    With a scheme the port is the scheme's. An address that means "all of this machine" is one to listen on: to connect,
    it is loopback. What cannot be read so comes back as it is, and is complained about as a URL.
    """
    text = text.strip().strip(_QUOTES).strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    written, slash, path = rest.partition("/")
    if isinstance(address(written), ipaddress.IPv6Address):
        written = f"[{written}]"
    found = _PLACE.fullmatch(written)
    if found is None or (not mark and found[1].lower() in ("http", "https")):  # http:/a lacks a stroke
        return text
    host, port = found[1] or "127.0.0.1", (found[2] or "").removesuffix(":") if found[2] == ":" else found[2] or ""
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return f"{scheme}://{host}{port or ('' if mark else f':{OLLAMA_PORT}')}{slash}{path}"


def shorthand(text: str, source: str) -> SourcedValue:
    """A server written as `url` or `id=url`, either as OLLAMA_HOST may be written."""
    named = NAMED.fullmatch(text.strip().strip(_QUOTES))
    url = url_of(named[2] if named else text)
    entry = {"url": SourcedValue(url, source, url)}
    return SourcedValue({"id": SourcedValue(named[1], source, named[1]), **entry} if named else entry, source)


def entries(items: Sequence[SourcedValue], *, lenient: bool) -> list[SourcedValue]:
    """The servers of a list with what was left out: ids, which come from host, port and path; schemes and ports.

    `lenient`: of entries with keys too, as operators write them; requests say `url` in full, as for a single server.
    """
    whole = [_entry(each, lenient) for each in items]
    taken = {str(each.value["id"].value) for each in whole if isinstance(each.value, dict) and "id" in each.value}
    return [_named(each, taken) for each in whole]


def _entry(given: SourcedValue, lenient: bool) -> SourcedValue:
    if isinstance(given.value, dict):
        url = given.value.get("url")
        text = None if url is None else _text(url)
        if url is None or text is None or "://" in text or not lenient:
            return given
        return SourcedValue({**given.value, "url": SourcedValue(url_of(text), url.source, url_of(text))}, given.source)
    text = _text(given)
    return given if text is None else shorthand(text, given.source)


def _text(given: SourcedValue) -> str | None:
    if given.value is None:
        return None
    return given.raw if given.raw is not None else given.value if isinstance(given.value, str) else None


def _named(given: SourcedValue, taken: set[str]) -> SourcedValue:
    if not isinstance(given.value, dict) or "id" in given.value or "url" not in given.value:
        return given
    url = given.value["url"]
    name = _free(str(url.value), taken)
    taken.add(name)
    return SourcedValue({"id": SourcedValue(name, url.source, name), **given.value}, given.source)


def _free(url: str, taken: set[str]) -> str:
    """Named after its place. A second server of that name (https, say) has a few letters more, always the same."""
    try:
        rest = normalise_url(url).partition("://")[2]
    except ValueError:  # the URL itself will be reported
        rest = "server-1"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", rest).strip("-._")[:_LONGEST] or "server-1"
    if name not in taken:
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()[:8]}"
