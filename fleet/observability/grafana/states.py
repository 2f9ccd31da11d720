"""What the states of a fleet look like in Grafana: one number each, a word with its shape, a colour."""

from __future__ import annotations

from typing import Final

from fleet.observability.grafana.panels import CRIT, OK, PLANNED, UNKNOWN, WARN, Query, chosen, matching
from fleet.observability.health_summary.summary import Level

_COLOURS: Final = {Level.OK: OK, Level.PLANNED: PLANNED, Level.UNKNOWN: UNKNOWN, Level.WARN: WARN, Level.CRIT: CRIT}
_WORDS: Final = {
    Level.OK: "Healthy",
    Level.PLANNED: "Planned work",
    Level.UNKNOWN: "Unknown",
    Level.WARN: "Degraded",
    Level.CRIT: "Down",
}
VERDICTS: Final = tuple((at, f"{level.glyph} {_WORDS[level]}", _COLOURS[level]) for at, level in enumerate(Level))
SERVERS: Final = (
    (3, "● Healthy", OK),
    (2, "■ Down", CRIT),
    (1, "◆ Out of service", PLANNED),
    (0, "◆ Out of service, down", UNKNOWN),
)
BREAKERS: Final = ((0, "● Closed", OK), (1, "▲ Half open", WARN), (2, "■ Open", CRIT))


def verdict() -> Query:
    """One series per fleet, the number of its verdict."""
    numbered = [(at, matching("level", level.value)) for at, level in enumerate(Level)]
    present = " or ".join(f"{at} * ({chosen('fleet_verdict', matcher)} == 1)" for at, matcher in numbered)
    return Query(f"max by (instance) ({present})", "{{instance}}")


def servers(*matchers: str) -> Query:
    """One series per server: 2 while it is in service, and 1 more while it answers."""
    up, serving = chosen("fleet_server_up", *matchers), chosen("fleet_server_in_service", *matchers)
    return Query(f"max by (server) ({up}) + 2 * max by (server) ({serving})", "{{server}}")


def breakers(*matchers: str) -> Query:
    """One series per pair of server and model whose breaker remembers something."""
    return Query(f"max by (server, model) ({chosen('fleet_breaker_state', *matchers)})", "{{server}} {{model}}")
