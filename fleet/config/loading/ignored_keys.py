"""Keys of the reference program that its own clients send and that mean nothing here: taken, and reported as ignored.

Its dashboard posts the whole configuration back with one field changed. What is no key of the reference is a typing
error, as ever. Its `healthCheck` is shown beside our own sections; what of it has a counterpart in `health` is obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleet.config.schema.balancing import HealthSection
from fleet.config.schema.introspection import spellings
from fleet.config.schema.model import Config
from fleet.config.schema.servers import MOST_SERVERS

HEALTH_CHECK: Final = "healthCheck"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SERVER: Final = _words(
    "type v1Models forceOllama forceV1 forceAnthropic anthropicPathOverride supportsOllama supportsV1"
)
_TOP: Final = _words(
    "logLevel enableMetrics enableStreaming enablePersistence persistencePath configReloadIntervalMs "
    "streaming tags cooldown recoveryTest modelManager"
)
_INNER: Final[dict[str, frozenset[str]]] = {
    "queue": _words("timeout priorityBoostInterval priorityBoostAmount maxPriority"),
    "load_balancer": _words(
        "thresholds latencyBlendRecent latencyBlendHistorical loadFactorMultiplier defaultLatencyMs "
        "defaultMaxConcurrency streaming roundRobin leastConnections crossModelInference"
    ),
    "circuit_breaker": _words(
        "adaptiveThresholds adaptiveThresholdAdjustment errorRateSmoothing nonRetryableRatioThreshold "
        "transientRatioThreshold modelEscalation errorPatterns backoff"
    ),
    "security": _words("corsOrigins rateLimitWindowMs rateLimitMax"),
    "metrics": _words("enabled prometheusEnabled prometheusPort historyWindowMinutes decay"),
    "retry": _words("maxRetriesPerServer retryDelayMs backoffMultiplier maxRetryDelayMs retryableStatusCodes"),
}
_WEIGHTS: Final = frozenset(("timeout", "vram"))
_COUNTERPARTS: Final = {
    "intervalMs": ("interval", 1000.0),
    "timeoutMs": ("tags_timeout", 1000.0),
    "recoveryIntervalMs": ("max_backoff", 1000.0),
    "failureThreshold": ("failures", 1),
}
"""What of `healthCheck` is a setting of `health`, and how many of its units make one of ours."""

Mapped = dict[str, Any]


def health_check(health: HealthSection) -> dict[str, Any]:
    """How servers are watched, in the reference's words: milliseconds, and what is fixed here as it is."""
    return {
        "enabled": True,
        "intervalMs": round(health.interval * 1000),
        "timeoutMs": round(health.tags_timeout * 1000),
        "maxConcurrentChecks": MOST_SERVERS,
        "retryAttempts": 0,
        "retryDelayMs": 0,
        "recoveryIntervalMs": round(health.max_backoff * 1000),
        "failureThreshold": health.failures,
        "successThreshold": 1,
        "backoffMultiplier": 2,
    }


def known_server(given: Mapping[str, Any], path: str = "") -> tuple[Mapped, list[str]]:
    """A description of a server without the keys that mean nothing here, and those keys' paths."""
    return _without(given, _SERVER, path)


def known_config(given: Mapping[str, Any], current: Config) -> tuple[Mapped, list[str]]:
    """The same of a configuration, whole or partial; what it says in `healthCheck` is said in `health`, if it differs.

    What is no mapping or list where one belongs stays as it is, and is complained about with everything else.
    """
    names = spellings(Config)
    found, ignored = _without(given, _TOP, "")
    if isinstance(found.get("host"), str):  # the address to listen on: here that is server.host
        ignored.append("host")
        del found["host"]
    for key, value in list(found.items()):
        section = names.get(key, "")
        if isinstance(value, Mapping) and section in _INNER:
            found[key], more = _section(value, section, key)
            ignored += more
        elif section == "servers" and isinstance(value, list):
            pairs = [
                known_server(each, f"{key}.{at}") if isinstance(each, Mapping) else (each, [])
                for at, each in enumerate(value)
            ]
            found[key] = [each for each, _ in pairs]
            ignored += [path for _, paths in pairs for path in paths]
    if isinstance(said := found.get(HEALTH_CHECK), Mapping):
        del found[HEALTH_CHECK]
        ignored += _obey(found, said, current)
    return found, ignored


def _section(value: Mapping[str, Any], section: str, key: str) -> tuple[Mapped, list[str]]:
    inner, ignored = _without(value, _INNER[section], key)
    if section == "load_balancer" and isinstance(weights := inner.get("weights"), Mapping):
        inner["weights"], more = _without(weights, _WEIGHTS, f"{key}.weights")
        ignored += more
    return inner, ignored


def _without(given: Mapping[str, Any], strange: frozenset[str], path: str) -> tuple[Mapped, list[str]]:
    found = {str(key): value for key, value in given.items() if key not in strange}
    return found, [f"{path}.{key}" if path else key for key in given if key in strange]


def _obey(found: Mapped, said: Mapping[str, Any], current: Config) -> list[str]:
    """Say in `health` what `healthCheck` says otherwise than it is; returns what of it cannot be obeyed.

    A key that the reference does not have goes there too, under its whole path: it is complained about as unknown.
    """
    shown, health, ignored = health_check(current.health), dict[str, Any](), list[str]()
    for key, value in said.items():
        if value == shown.get(key, ...):
            continue
        if key in _COUNTERPARTS and isinstance(value, int | float) and not isinstance(value, bool):
            name, unit = _COUNTERPARTS[key]
            health[name] = value if unit == 1 else value / unit
        elif key in _COUNTERPARTS:
            health[_COUNTERPARTS[key][0]] = value
        elif key not in shown:
            health[f"{HEALTH_CHECK}.{key}"] = value
        else:
            ignored.append(f"{HEALTH_CHECK}.{key}")
    ours = found.get("health")
    if health and (ours is None or isinstance(ours, Mapping)):
        found["health"] = {**(ours or {}), **health}
    return ignored
