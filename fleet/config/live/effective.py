"""What `fleet check` prints: the configuration in effect, and where every value came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from fleet.config.loading.layers import Loaded
from fleet.config.schema.introspection import leaves
from fleet.config.schema.model import Config
from fleet.config.schema.urls import hint

REDACTED: Final = "**********"
OVERRIDES: Final = {
    "timeouts.total": ("server.request_timeout", "total_timeout"),
    "queue.max_size": ("monitoring.max_queue_size", "queue_size"),
}
"""Keys that another key may override, with that key and the property that knows the outcome."""


def report(loaded: Loaded) -> str:
    """One line `path = value  # source` per setting, secrets redacted; then what may surprise."""
    values = {path: value for path, value, _ in leaves(loaded.config)}
    lines = [_line(path, values, loaded) for path in values]
    security = loaded.config.security
    if security.has_keys and not security.keys_required:
        what = next(key for key in ("api_keys", "keys", "keys_file") if getattr(security, key))
        lines += ["", f"open: security.{what} are given, but security.require_api_key is false, so nobody needs one"]
    if told := hints(loaded.config):
        lines += ["", *(f"hint: {each}" for each in told)]
    return "\n".join(lines) + "\n"


def hints(config: Config) -> list[str]:
    """What is accepted and probably not what was meant, a line each with the path of its key."""
    told = ((index, hint(spec.url)) for index, spec in enumerate(config.servers))
    return [f"servers.{index}.url: {what}" for index, what in told if what]


def _line(path: str, values: Mapping[str, Any], loaded: Loaded) -> str:
    value, origin = values[path], loaded.origins[path]
    over, effective = OVERRIDES.get(path, ("", ""))
    if over and values[over] is not None:
        value, origin = getattr(loaded.config, effective), f"{loaded.origins[over]}, as {over}"
    return f"{f'{path} = {_show(value)}':<56} # {origin}"


def _show(value: Any) -> str:
    """As YAML would read it. JSON escapes control characters, which would otherwise reach the terminal."""
    if isinstance(value, SecretStr):
        return REDACTED if value.get_secret_value() else _show("")
    if isinstance(value, tuple):
        return f"[{', '.join(_show(each) for each in value)}]"
    return json.dumps(value)
