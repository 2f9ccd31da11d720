"""Endpoints that a server's version of Ollama does not have yet: asked for once, then not until it is another version.

What it is wrong about: a gateway before a server may say the same for a moment. So it is forgotten when the server was
down in between, and after an hour. Bounded by the hot endpoints times the fleet's servers.
"""

from __future__ import annotations

from typing import Final

from fleet.common.ids import ServerId

_LONGEST: Final = 3600.0
"""Seconds until it is asked for again, whatever the version."""
_NOBODY: Final[frozenset[ServerId]] = frozenset()


class MissingRoutes:
    """By endpoint, the servers without it. Reading costs one look-up, whatever is missing."""

    def __init__(self) -> None:
        self._without: dict[str, frozenset[ServerId]] = {}
        self._versions: dict[ServerId, tuple[str | None, float]] = {}

    def note(self, server: ServerId, endpoint: str, version: str | None, now: float) -> bool:
        """A server has said that it does not know the endpoint; True if that is news. `version` is its own."""
        without = self._without.get(endpoint, _NOBODY)
        self._versions[server] = (version, now)
        if server in without:
            return False
        self._without[endpoint] = without | {server}
        return True

    def of(self, endpoint: str) -> frozenset[ServerId]:
        """The servers that do not have it."""
        return self._without.get(endpoint, _NOBODY)

    def routes(self, server: ServerId) -> list[str]:
        """What a server does not have."""
        return [endpoint for endpoint, without in self._without.items() if server in without]

    def seen(self, server: ServerId, version: str | None, now: float) -> None:
        """A server has said its version: with another one it may have learned."""
        if server in self._versions:
            before, noted = self._versions[server]
            if version not in (None, before) or now - noted >= _LONGEST:
                self.forget(server)

    def forget(self, server: ServerId) -> None:
        """The server is gone, or another machine, or was down."""
        if self._versions.pop(server, None) is None:
            return
        for endpoint, without in list(self._without.items()):
            if rest := without - {server}:
                self._without[endpoint] = rest
            else:
                del self._without[endpoint]
