"""Who may do what by the configuration alone, before anybody has shown a key."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.config.schema.model import Config
from fleet.config.schema.urls import is_loopback
from fleet.security.api_keys import StoredKey
from fleet.security.roles import Role


def anonymous_role(config: Config) -> Role:
    """What callers without a key may do.

    Where keys are required those only come to the few open doors. Else, if nothing is said, whoever can reach a
    loopback address owns the machine (unless a reverse proxy stands there and lets others in), and a stranger in the
    network may use models.
    """
    security = config.security
    if security.keys_required:
        return Role.CLIENT
    if security.anonymous_role == "auto":
        alone = is_loopback(config.server.host) and not config.server.trusted_proxies
        return Role.ADMIN if alone else Role.CLIENT
    return Role.of(security.anonymous_role)


def has_admin(config: Config, stored: Iterable[StoredKey]) -> bool:
    """Whether anybody may change the configuration; `stored` is what its file of keys holds."""
    security = config.security
    if security.api_keys or (not security.keys_required and anonymous_role(config) is Role.ADMIN):
        return True
    named = any(key.role == Role.ADMIN.word for key in security.keys)
    return named or any(key.role is Role.ADMIN and key.revoked is None for key in stored)
