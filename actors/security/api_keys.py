"""The keys of one fleet: what its files hold, who that admits, and what nobody may ever see in a text."""

from __future__ import annotations

import os
import re
from typing import Final, Protocol

import trio

from actors.security.key_file import KeyFile
from fleet.config import Config, SecuritySection
from fleet.security.api_keys import KeyRing, StoredKey
from fleet.security.known_secrets import Secrets, texts_of

EVERY: Final = 1.0
"""Seconds between two looks at the file; a revoked key works for no longer than that."""
_THREADS: Final = 2
"""Looks at a file that may hang at one time: that of every second, and one that was asked for."""
_PATIENCE: Final = 10.0
"""Seconds for one look of `follow`, so that it sees when another file is named."""
_SECRET_VARIABLE: Final = re.compile(r"FLEET_\w*(?:TOKEN|KEY|SECRET|PASSWORD)\w*")


class ConfigHolder(Protocol):
    """Whatever runs by a configuration, which changes."""

    @property
    def config(self) -> Config: ...


class ApiKeys:
    """One for each fleet, made with it: two fleets of a process may name one file and know nothing of each other.

    What is worked out of a configuration is kept for the last one asked about, by identity: configurations are values
    that nobody changes, and a fleet has one at a time. Any thread may ask (records are logged in threads, and what a
    change would bring is checked in one): each of the two memories below is replaced whole, so that nobody finds one
    configuration beside the keys of another.
    """

    def __init__(self) -> None:
        self.changes = 0
        """How often a file has brought other keys: what was decided by keys before is to be decided again."""
        self._files: dict[str, KeyFile] = {}
        self._threads: dict[str, trio.CapacityLimiter] = {}
        """By file: one that hangs takes none of another's."""
        self._ring: tuple[SecuritySection, tuple[StoredKey, ...], KeyRing] | None = None
        self._secrets: tuple[Config, Secrets] | None = None

    def stored(self, path: str) -> tuple[StoredKey, ...]:
        """The keys of a file: the same tuple until they change. The first time it is read, later only recalled."""
        known = self._files.get(path)
        if known is None:
            known = KeyFile(path)
            known.take(known.read())
            known = self._files.setdefault(path, known)  # another thread may have been here
        return known.keys

    def ring(self, security: SecuritySection) -> KeyRing:
        """Everybody who has a key now. Made once per configuration and content of the file of keys."""
        stored = self.stored(security.keys_file) if security.keys_file else ()
        kept = self._ring
        if kept is None or kept[0] is not security or kept[1] is not stored:
            kept = self._ring = security, stored, security.key_ring(stored)
        return kept[2]

    def secrets(self, config: Config) -> Secrets:
        """Every secret in a configuration and in our environment, and all keys. Made once per configuration."""
        kept = self._secrets
        if kept is None or kept[0] is not config:
            said = (text for name, text in os.environ.items() if _SECRET_VARIABLE.fullmatch(name))
            made = Secrets((*texts_of(config), *said), lambda key: self.ring(config.security).find(key))
            kept = self._secrets = config, made
        return kept[1]

    async def follow(self, holder: ConfigHolder, every: float = EVERY) -> None:
        """Look at the file of the configuration of the moment, again and again, until cancelled.

        The disk is touched in a worker thread: one that hangs leaves the fleet with the keys it has.
        """
        while True:
            path = holder.config.security.keys_file
            if path:
                with trio.move_on_after(_PATIENCE):
                    await self.refresh(path)
            await trio.sleep(every)

    async def refresh(self, path: str) -> None:
        """Look at one file now. Cancelled: nothing has changed."""
        file = self._files.get(path) or KeyFile(path)
        threads = self._threads.setdefault(path, trio.CapacityLimiter(_THREADS))
        found = await trio.to_thread.run_sync(file.read, abandon_on_cancel=True, limiter=threads)
        if self._files.setdefault(path, file) is file and file.take(found):
            self.changes += 1
