"""Endpoints that a server's version of Ollama does not have yet: asked for once, then not until it is another version.

Bounded by the hot endpoints times the fleet's servers.
"""

from __future__ import annotations

from typing import Final

from fleet.ids import ServerId

_NOBODY: Final[frozenset[ServerId]] = frozenset()


class MissingRoutes:
    """By endpoint, the servers without it. Reading costs one look-up, whatever is missing."""

    def __init__(self) -> None:
        self._without: dict[str, frozenset[ServerId]] = {}
        self._versions: dict[ServerId, str | None] = {}

    def note(self, server: ServerId, endpoint: str, version: str | None) -> bool:
        """A server has said that it does not know the endpoint; True if that is news. `version` is its own."""
        without = self._without.get(endpoint, _NOBODY)
        self._versions[server] = version
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

    def concerns(self, server: ServerId) -> bool:
        """Whether a server lacks anything, so that its version is worth asking for."""
        return server in self._versions

    def seen(self, server: ServerId, version: str | None) -> None:
        """A server has said its version: with another one it may have learned."""
        if server in self._versions and version is not None and version != self._versions[server]:
            self.forget(server)

    def forget(self, server: ServerId) -> None:
        """The server is gone, or another machine."""
        if self._versions.pop(server, self) is self:
            return
        for endpoint, without in list(self._without.items()):
            if rest := without - {server}:
                self._without[endpoint] = rest
            else:
                del self._without[endpoint]
