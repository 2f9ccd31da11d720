"""Where the fleet sends things of its own accord: the webhook of alerts, the collector of traces.

They are held to what servers are held to: everybody who will use the URL must read it alike, and it must not lead to
where clouds hand out credentials. That is said when they are configured; by which addresses a name is known, when
something is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.config.schema.model import Config
from fleet.config.schema.urls import check_receiver
from fleet.security.backend_addresses import refusal

WEBHOOK = "alerts.webhook.url"
COLLECTOR = "otel.endpoint"


@dataclass(frozen=True, slots=True)
class Anywhere:
    """The rules for servers' addresses, without the list of servers: a receiver is none."""

    allow_private: bool = True
    allow_link_local: bool = False
    allowed: Sequence[str] = ()


def rules(config: Config) -> Mapping[str, Anywhere]:
    """What addresses each receiver may have. A collector stands beside the fleet as a rule: never too private."""
    backends = config.security.backends
    return {
        WEBHOOK: Anywhere(backends.allow_private, backends.allow_link_local),
        COLLECTOR: Anywhere(allow_link_local=backends.allow_link_local),
    }


def receivers(config: Config) -> dict[str, str]:
    """The URLs that are set, by the path of their keys."""
    found = {WEBHOOK: config.alerts.webhook.url.get_secret_value(), COLLECTOR: config.otel.endpoint}
    return {path: url for path, url in found.items() if url}


def misdirected(config: Config) -> list[tuple[str, str]]:
    """What is wrong with them as they are written, as (path, message) each. No URL is in the words: it may be a key."""
    found: list[tuple[str, str]] = []
    for path, url in receivers(config).items():
        try:
            check_receiver(url, plain=path == COLLECTOR)
        except ValueError as error:
            found.append((path, str(error)))
            continue
        if why := refusal(url, rules(config)[path]):
            found.append((path, why))
    return found
