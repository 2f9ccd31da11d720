"""`fleet status`: what answers on the configured ports, and the fleet's own sentence on its state."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import typer

from actors.kit.clock import process_clock
from fleet.config import Config, ConfigError, listening
from fleet.observability.health_summary.summary import Level
from fleet.security.api_keys import LONGEST_KEY
from web.cli.configuration import BAD_CONFIG, likely, read, tell, tolerant

PATIENCE: Final = 3.0
"""Seconds a port gets to answer."""
STRANGER: Final = "answers, but not like a fleet: is something else using the port?"
SILENT: Final = "takes the connection, but does not answer within {:g} s"
# httpx calls a TLS handshake that fails, or never ends, by the same names as a port where nobody listens.
_CONNECTED: Final = "connection.connect_tcp.complete"
_OURS: Final = ("orchestrator", "services")
"""What only a fleet says of its health: the metrics port in other words than the rest."""
_NOT_RUNNING: Final = "not running"
_NOBODY: Final = (_NOT_RUNNING, STRANGER)
_LONGEST: Final = 300
"""Characters of the sentence."""
_MOST: Final = 2**20
"""Bytes of an answer: a fleet of many servers tells of each."""


Ask = Callable[[str], tuple[str, str]]
"""What the health of a URL is: the fleet's word for it, and its verdict."""


def status_of(file: Path | None, url: str | None, token_file: Path | None, say: Callable[[str], None]) -> int:
    """The exit code of `fleet status`: 0 well, 1 not, 2 wrong usage, or nothing runs and the file is broken."""
    token = _token(token_file)
    if url:
        tls = ssl.create_default_context() if token else _trusting()
        return 0 if _report({"fleet": _checked_url(url)}, partial(_ask, token=token, tls=tls), say) else 1
    text, source = read(file)
    try:
        found = tolerant(text, {}, source)
    except ConfigError as error:
        tell(error)
        config = likely(text)
        if not any(_ask(each)[0] not in _NOBODY for each in _urls(config).values()):
            return BAD_CONFIG
        typer.echo(f"fleet: {source} cannot be used as it is; here is what answers nevertheless", err=True)
        return 0 if report_status(config, say, token) else 1
    found.warn()
    return 0 if report_status(found.config, say, token) else 1


def report_status(config: Config, say: Callable[[str], None], token: str = "") -> bool:
    """Ask each port for its health; True if all of them answer and are healthy."""
    tls = _trusting(config.server.tls.certificate if token else "")
    return _report(_urls(config), partial(_ask, token=token, tls=tls), say)


def _report(urls: dict[str, str], ask: Ask, say: Callable[[str], None]) -> bool:
    """A line for each port, and the first verdict that one of them tells; whether all answer and are healthy."""
    well, verdict = True, ""
    for name, url in urls.items():
        word, line = ask(url)
        say(f"{name:<13} {url:<28} {word}")
        well = well and word in ("ok", "healthy")
        verdict = verdict or line
    if verdict:
        say(verdict)
    return well


def _urls(config: Config) -> dict[str, str]:
    known = {path: port for path, port in listening(config).items() if port}  # 0: nobody knows which
    ports = {path.removeprefix("server.").removesuffix("_port"): port for path, port in known.items()}
    origin = f"{'https' if config.server.tls.enabled else 'http'}://{_reachable(config.server.host)}"
    return {name: f"{origin}:{port}" for name, port in ports.items()}


def _checked_url(url: str) -> str:
    """The URL without what stands behind its port; exit code 2 if it is none."""
    try:
        parsed = httpx.URL(url if "://" in url else f"http://{url}")
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        typer.echo(f"fleet: FLEET_URL or --url must be like https://fleet.lan:5100, not {url[:200]!r}", err=True)
        raise typer.Exit(BAD_CONFIG)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _token(file: Path | None) -> str:
    """The API key to show: of the file, else of FLEET_TOKEN, else none. Exit code 2 if it cannot be one."""
    token, source = os.environ.get("FLEET_TOKEN", ""), "FLEET_TOKEN"
    if file is not None:
        source = str(file)
        try:
            with file.open(encoding="ascii") as opened:
                token = opened.read(LONGEST_KEY + 2)
        except (OSError, UnicodeDecodeError) as error:
            typer.echo(f"fleet: --token-file: cannot read {file}: {getattr(error, 'strerror', 'no text')}", err=True)
            raise typer.Exit(BAD_CONFIG) from None
    token = token.strip()
    if len(token) > LONGEST_KEY or not (token.isascii() and token.isprintable()) or (file is not None and not token):
        typer.echo(f"fleet: {source} holds no API key", err=True)
        raise typer.Exit(BAD_CONFIG)
    return token


def _trusting(certificate: str = "") -> ssl.SSLContext:
    """TLS to our own machine, by an address that no certificate needs to name.

    With a key to show, only the very certificate of the configuration will do; else nothing secret is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if certificate:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(certificate)
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


def _ask(url: str, token: str = "", tls: ssl.SSLContext | None = None) -> tuple[str, str]:
    """The fleet's own word for its health, or what is wrong; and its verdict, if it tells one."""
    steps: list[str] = []
    try:
        answer = _health(url, steps, token, tls or _trusting())
    except httpx.TimeoutException:
        return (SILENT.format(PATIENCE) if _CONNECTED in steps else _NOT_RUNNING), ""
    except (httpx.HTTPError, ValueError):
        return (STRANGER if _CONNECTED in steps else _NOT_RUNNING), ""
    if not isinstance(answer, dict) or not any(key in answer for key in _OURS):
        return STRANGER, ""
    return str(answer.get("status")), _line(answer.get("verdict"))


def _line(verdict: Any) -> str:
    """The verdict with its shape in front; empty if there is none."""
    try:
        glyph, headline = Level(verdict["level"]).glyph, str(verdict["headline"])
    except (KeyError, TypeError, ValueError):
        return ""
    return f"{glyph} {''.join(filter(str.isprintable, headline))[:_LONGEST]}"


def _health(url: str, steps: list[str], token: str, tls: ssl.SSLContext) -> Any:
    """What /health says, whoever answers. What was achieved on the way there goes into `steps`."""

    def note(step: str, _: object) -> None:
        steps.append(step)

    fields = {"Authorization": f"Bearer {token}"} if token else {}
    with (
        httpx.Client(timeout=PATIENCE, trust_env=False, verify=tls, headers=fields) as client,
        client.stream("GET", f"{url}/health", extensions={"trace": note}) as answer,
    ):
        return orjson.loads(_whole(answer))


def _whole(answer: httpx.Response) -> bytes:
    """The body. Raises ReadTimeout and ValueError for one without end, be it slow or fast: who knows who answers?"""
    clock = process_clock()
    body, until = b"", clock.now() + PATIENCE
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > _MOST:
            raise ValueError("too long for a fleet's health")
        if clock.now() > until:
            raise httpx.ReadTimeout("too slow")
    return body


def _reachable(host: str) -> str:
    """An address for a client on this machine, as it stands in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
