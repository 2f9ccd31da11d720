"""What Ollama refuses before looking at the route: foreign hosts and origins."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from web.simulator.engine.exchange import SimulatedExchange

_ORIGIN: Final = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:\d+)?|(app|file|tauri|vscode-webview|vscode-file)://.*"
)
_PREFLIGHT: Final = (
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ("Access-Control-Allow-Headers", "Authorization,Content-Type,User-Agent,Accept,X-Requested-With"),
    ("Access-Control-Max-Age", "43200"),
)


async def guarded(exchange: SimulatedExchange) -> bool:
    """True if the request was answered here: refused, or a preflight."""
    origin, host = exchange.seen.header("origin"), exchange.seen.header("host") or ""
    if not _host_allowed(host) or (origin is not None and not _ORIGIN.fullmatch(origin)):
        await exchange.reply(403)
        return True
    if origin is None:
        return False
    exchange.cors = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
    if exchange.method != "OPTIONS":
        return False
    await exchange.reply(204, headers=_PREFLIGHT)
    return True


def _host_allowed(header: str) -> bool:
    host = re.sub(r":\d+$", "", header).strip("[]").lower()
    if host in ("", "localhost") or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified
