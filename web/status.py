"""`fleet status`: what answers on the configured ports."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from fleet.config import Config


def report_status(config: Config, say: Callable[[str], None]) -> bool:
    """Ask each port for its health; True if the proxy and the orchestrator port both answer and are healthy."""
    ports = {"proxy": config.server.proxy_port, "orchestrator": config.orchestrator_port}
    verdicts = [_ask(name, config.server.host, port, say) for name, port in ports.items()]
    return all(verdicts)


def _ask(name: str, host: str, port: int, say: Callable[[str], None]) -> bool:
    address = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{address}:{port}"
    try:
        answer = httpx.get(f"{url}/health", timeout=3.0, trust_env=False)
        verdict = str(answer.json().get("status", "unknown"))
    except httpx.ConnectError:
        say(f"{name:<13} {url:<28} not running")
        return False
    except (httpx.HTTPError, ValueError, AttributeError):
        say(f"{name:<13} {url:<28} answers, but not like a fleet: is something else using the port?")
        return False
    say(f"{name:<13} {url:<28} {verdict}")
    return verdict in ("ok", "healthy")
