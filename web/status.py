"""`fleet status`: what answers on the configured ports, and the fleet's own sentence on its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import httpx
import orjson

from fleet.config import Config, listening
from fleet.verdict import Level

PATIENCE: Final = 3.0
"""Seconds a port gets to answer."""
STRANGER: Final = "answers, but not like a fleet: is something else using the port?"
SILENT: Final = "takes the connection, but does not answer within {:g} s"
# httpx calls a TLS handshake that fails, or never ends, by the same names as a port where nobody listens.
_CONNECTED: Final = "connection.connect_tcp.complete"
_OURS: Final = ("orchestrator", "services")
"""What only a fleet says of its health: the metrics port in other words than the rest."""
_LONGEST: Final = 300
"""Characters of the sentence."""
_MOST: Final = 2**20
"""Bytes of an answer: a fleet of many servers tells of each."""


def report_status(config: Config, say: Callable[[str], None]) -> bool:
    """Ask each port for its health; True if all of them answer and are healthy."""
    known = {path: port for path, port in listening(config).items() if port}  # 0: nobody knows which
    ports = {path.removeprefix("server.").removesuffix("_port"): port for path, port in known.items()}
    origin = f"{'https' if config.server.tls.enabled else 'http'}://{_reachable(config.server.host)}"
    found = [_told(name, f"{origin}:{port}", say) for name, port in ports.items()]
    line = next((line for _, line in found if line), "")
    if line:
        say(line)
    return all(well for well, _ in found)


def _told(name: str, url: str, say: Callable[[str], None]) -> tuple[bool, str]:
    """Whether one port answers and is healthy, and the verdict that it tells."""
    word, line = _ask(url)
    say(f"{name:<13} {url:<28} {word}")
    return word in ("ok", "healthy"), line


def _ask(url: str) -> tuple[str, str]:
    """The fleet's own word for its health, or what is wrong; and its verdict, if it tells one."""
    steps: list[str] = []
    try:
        answer = _health(url, steps)
    except httpx.TimeoutException:
        return (SILENT.format(PATIENCE) if _CONNECTED in steps else "not running"), ""
    except (httpx.HTTPError, ValueError):
        return (STRANGER if _CONNECTED in steps else "not running"), ""
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


def _health(url: str, steps: list[str]) -> Any:
    """What /health says, whoever answers. What was achieved on the way there goes into `steps`."""

    def note(step: str, _: object) -> None:
        steps.append(step)

    # The certificate is not verified: this is our own machine, asked by an address that no certificate needs to name,
    # and nothing secret is sent.
    with (
        httpx.Client(timeout=PATIENCE, trust_env=False, verify=False) as client,
        client.stream("GET", f"{url}/health", extensions={"trace": note}) as answer,
    ):
        return orjson.loads(_whole(answer))


def _whole(answer: httpx.Response) -> bytes:
    """The body. Raises ReadTimeout and ValueError for one without end, be it slow or fast: who knows who answers?"""
    body, until = b"", time.monotonic() + PATIENCE
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > _MOST:
            raise ValueError("too long for a fleet's health")
        if time.monotonic() > until:
            raise httpx.ReadTimeout("too slow")
    return body


def _reachable(host: str) -> str:
    """An address for a client on this machine, as it stands in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
