"""`fleet status`: what answers on the configured ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httpx

from fleet.config import Config

PATIENCE: Final = 3.0
"""Seconds a port gets to answer."""
STRANGER: Final = "answers, but not like a fleet: is something else using the port?"


def report_status(config: Config, say: Callable[[str], None]) -> bool:
    """Ask each port for its health; True if the proxy and the orchestrator port both answer and are healthy."""
    ports = {"proxy": config.server.proxy_port, "orchestrator": config.orchestrator_port}
    verdicts = [_ask(name, config.server.host, port, say) for name, port in ports.items()]
    return all(verdicts)


def _ask(name: str, host: str, port: int, say: Callable[[str], None]) -> bool:
    url = f"http://{_reachable(host)}:{port}"
    verdict = _verdict(url)
    say(f"{name:<13} {url:<28} {verdict}")
    return verdict in ("ok", "healthy")


def _verdict(url: str) -> str:
    """The fleet's own word for its health, or what is wrong."""
    try:
        answer = httpx.get(f"{url}/health", timeout=PATIENCE, trust_env=False).json()
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return "not running"
    except httpx.TimeoutException:
        return f"takes the connection, but does not answer within {PATIENCE:g} s"
    except (httpx.HTTPError, ValueError):
        return STRANGER
    known = isinstance(answer, dict) and "orchestrator" in answer
    return str(answer.get("status")) if known else STRANGER


def _reachable(host: str) -> str:
    """An address for a client on this machine, as it stands in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
