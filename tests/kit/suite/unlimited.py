"""Rate limits are off in tests that do not speak of them: a crowd from one address is what most of them are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unlimited(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration, without rate limits unless `security.rate_limiting` is among them."""
    return {**config, "security": {"rate_limiting": {"enabled": False}, **config.get("security", {})}}
