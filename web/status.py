"""`fleet status`: what answers on the configured ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx

from fleet.config import Config, listening

PATIENCE: Final = 3.0
"""Seconds a port gets to answer."""
STRANGER: Final = "answers, but not like a fleet: is something else using the port?"
SILENT: Final = "takes the connection, but does not answer within {:g} s"
# httpx calls a TLS handshake that fails, or never ends, by the same names as a port where nobody listens.
_CONNECTED: Final = "connection.connect_tcp.complete"


def report_status(config: Config, say: Callable[[str], None]) -> bool:
    """Ask each port for its health; True if all of them answer and are healthy."""
    known = {path: port for path, port in listening(config).items() if port}  # 0: nobody knows which
    ports = {path.removeprefix("server.").removesuffix("_port"): port for path, port in known.items()}
    origin = f"{'https' if config.server.tls.enabled else 'http'}://{_reachable(config.server.host)}"
    verdicts = [_ask(name, f"{origin}:{port}", say) for name, port in ports.items()]
    return all(verdicts)


def _ask(name: str, url: str, say: Callable[[str], None]) -> bool:
    verdict = _verdict(url)
    say(f"{name:<13} {url:<28} {verdict}")
    return verdict in ("ok", "healthy")


def _verdict(url: str) -> str:
    """The fleet's own word for its health, or what is wrong."""
    steps: list[str] = []
    try:
        answer = _health(url, steps)
    except httpx.TimeoutException:
        return SILENT.format(PATIENCE) if _CONNECTED in steps else "not running"
    except (httpx.HTTPError, ValueError):
        return STRANGER if _CONNECTED in steps else "not running"
    known = isinstance(answer, dict) and "orchestrator" in answer
    return str(answer.get("status")) if known else STRANGER


def _health(url: str, steps: list[str]) -> Any:
    """What /health says, whoever answers. What was achieved on the way there goes into `steps`."""

    def note(step: str, _: object) -> None:
        steps.append(step)

    # The certificate is not verified: this is our own machine, asked by an address that no certificate needs to name,
    # and nothing secret is sent.
    with httpx.Client(timeout=PATIENCE, trust_env=False, verify=False) as client:
        return client.get(f"{url}/health", extensions={"trace": note}).json()


def _reachable(host: str) -> str:
    """An address for a client on this machine, as it stands in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
