"""Which keys take effect while the fleet runs, and which wait for the next start.

Every key stands in one of the two tables; a test walks the model. A key that stands in none waits for a restart, which
is never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import BaseModel

from fleet.config.schema.introspection import fields
from fleet.config.schema.model import Config

Effect = Literal["now", "restart"]


def _under(section: str, names: str) -> set[str]:
    return {f"{section}.{name}" for name in names.split()}


NOW: Final = frozenset(
    {"servers", "enable_queue", "enable_circuit_breaker", "drain_timeout"}
    | _under("server", "request_timeout trusted_proxies")
    | _under("queue", "max_size ageing_seconds no_server_grace")
    | _under("load_balancer", "policy candidates decisions")
    | _under(
        "load_balancer.weights",
        "latency success_rate load capacity circuit_breaker residency throughput priority",
    )
    | _under("health", "interval jitter tags_timeout ps_timeout version_timeout failures max_backoff")
    | _under("timeouts", "head keep_alive connect queue first_byte idle body_idle write total")
    | _under("retry", "max_attempts budget_ratio budget_floor")
    | _under(
        "circuit_breaker",
        "base_failure_threshold min_failure_threshold max_failure_threshold adaptive open_timeout open_jitter "
        "half_open_timeout half_open_max_requests recovery_success_threshold active_test_timeout error_rate_threshold "
        "error_rate_window error_rate_min_requests",
    )
    | _under("limits", "body_bytes headers connections decoded_bytes buffered_bytes")
    | _under("compat", "native_errors")
    | _under("cors", "headers origins")
    | _under("placement", "builder pull_copies")
    | _under("jobs", "per_server total waiting keep load_timeout")
    | _under("history", "keep_days keep_bytes")
    | _under("reload", "watch")
    | _under("monitoring", "max_concurrent_requests max_queue_size rate_limit_per_minute")
    | _under("security.rate_limiting", "enabled requests_per_minute")
    | _under("metrics", "models pairs callers exemplars")
    | _under("host", "enabled interval timeout")
    | _under(
        "alerts",
        "enabled history error_rate error_requests queue_wait slow_ratio slow_requests first_token stall_share "
        "breaker_flaps thrash_loads cpu memory disk vram drain",
    )
    | _under("alerts.webhook", "url secret severity timeout attempts")
    | _under("dashboard", "max_clients max_clients_per_address interval message_bytes")
    | _under("ai_status", "enabled model interval timeout")
    | _under(
        "security",
        "require_api_key api_keys keys keys_file anonymous_role allow_unauthenticated allowed_hosts "
        "backends.allow_private backends.allow_link_local backends.allowed",
    )
    | _under("logging", "level format")
)
"""They act at once: on the next request, the next probe, the next connection, or on what waits already."""

RESTART: Final = frozenset(
    {"port"}
    | _under("server", "host proxy_port orchestrator_port metrics_port dashboard_port tls.certificate tls.key")
    # The application behind the edge has its own bound on heads, given to it when it starts.
    | _under("limits", "header_bytes")
    | _under("store", "enabled url audit_lines")
    | _under("history", "enabled url")
    # It bounds what the admin API may touch: the API must not be able to widen it.
    | _under("reload", "directory")
    # The exporter is a thread of its own, made once.
    | _under("otel", "endpoint service_name sample_ratio")
)
"""The running process keeps what it was started with."""


def keys(model: type[BaseModel] = Config, path: str = "") -> Iterator[str]:
    """The dotted path of every key that has a value of its own; a list of sections is one key."""
    for name, _, shape in fields(model):
        if shape.model is not None and not shape.many:
            yield from keys(shape.model, f"{path}{name}.")
        else:
            yield f"{path}{name}"


KEYS: Final = tuple(keys())


def effect_of(path: str) -> Effect:
    """When a change of this key acts; what lies below `servers` is as `servers`."""
    known = "servers" if path.startswith("servers.") else path
    return "now" if known in NOW else "restart"


def value_at(config: Config, path: str) -> Any:
    """The value of a key of `KEYS`."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def held(wanted: Config, running: Config) -> Config:
    """`wanted`, but with what `running` has in every key that needs a restart: the truth about the running process."""
    kept = {path: value_at(running, path) for path in KEYS if effect_of(path) == "restart"}
    changed = {path: value for path, value in kept.items() if value != value_at(wanted, path)}
    for path, value in changed.items():
        wanted = _with(wanted, path.split("."), value)
    return wanted


def _with(section: Any, path: list[str], value: Any) -> Any:
    inner = value if len(path) == 1 else _with(getattr(section, path[0]), path[1:], value)
    return section.model_copy(update={path[0]: inner})


def awaiting_restart(wanted: Config, running: Config) -> list[str]:
    """The keys whose wanted value is not in effect before a restart."""
    late = [path for path in KEYS if effect_of(path) == "restart"]
    return [path for path in late if value_at(wanted, path) != value_at(running, path)]
