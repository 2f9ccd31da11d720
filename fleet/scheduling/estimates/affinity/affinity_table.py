"""Which server was given which beginning of a prompt, and when: where it may still be cached.

A link (see `prompt_links`) leads to the last four servers that were given it. The longest link that leads to a server
tells how much of the prompt may be cached there; how probably it still is, `cache_hits` says by age. Units: bytes of
the prompt, seconds. What a session's link leads to counts where no link of the prompt does: up to as many bytes as that
session last had.

A runner that was loaded anew has an empty cache: its epoch changes, and what was noted before counts no more.

What it is wrong about: a runner that was restarted unseen keeps its epoch until its next load shows; what the server
threw out of its cache for other prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.affinity.prompt_links import PromptLink

MOST_LINKS: Final = 65_536
MOST_HOMES: Final = 4
_PAIRS: Final = 16_384
_SHORTEST: Final = 16
"""Bytes of a beginning from which on it is worth anything."""


class PrefixUse(NamedTuple):
    """A prompt that a runner was given: `size` is its length in bytes. One is shared by all links of the prompt."""

    server: ServerId
    epoch: int
    at: float
    size: int


class PrefixHit(NamedTuple):
    """What a server may have cached of a prompt: bytes from its beginning, and the seconds since they were used."""

    size: int
    age: float


class AffinityTable:
    """Bounded memory: 65,536 links, about 16 MiB; 16,384 epochs."""

    def __init__(self, most: int = MOST_LINKS) -> None:
        self._links: LruTable[int, tuple[PrefixUse, ...]] = LruTable(most)
        self._epochs: LruTable[Pair, int] = LruTable(_PAIRS)
        self._last_epoch = 0

    def __len__(self) -> int:
        return len(self._links)

    def find(
        self, model: ModelName, links: Sequence[PromptLink], session: int | None, now: float
    ) -> dict[ServerId, PrefixHit]:
        """What each server may have cached of the prompt, those that may have most first."""
        found: dict[ServerId, PrefixHit] = {}
        for link in reversed(links):
            if link.end >= _SHORTEST:
                self._collect(found, model, link.digest, link.end, now)
        if session is not None:
            whole = links[-1].end if links else _SHORTEST
            self._collect(found, model, session, whole, now)
        return found

    def note(self, pair: Pair, links: Sequence[PromptLink], session: int | None, now: float) -> None:
        """The runner was given this prompt: it has all of it in its cache now."""
        epoch = self._epochs.use(pair, self._next_epoch)
        use = PrefixUse(pair.server, epoch, now, links[-1].end if links else _SHORTEST)
        for digest in (*(link.digest for link in links), *(() if session is None else (session,))):
            others = self._links.get(digest)
            if others is None:
                homes: tuple[PrefixUse, ...] = (use,)
            elif others[0].server == pair.server:
                homes = (use, *others[1:])
            else:
                homes = (use, *(each for each in others if each.server != pair.server))[:MOST_HOMES]
            self._links.put(digest, homes)

    def renew(self, pair: Pair) -> None:
        """Its runner was loaded, unloaded or has expired: what it had cached is lost."""
        self._epochs.put(pair, self._next_epoch())

    def _next_epoch(self) -> int:
        self._last_epoch += 1
        return self._last_epoch

    def _collect(self, found: dict[ServerId, PrefixHit], model: ModelName, digest: int, size: int, now: float) -> None:
        for use in self._links.get(digest, ()):
            server = use.server
            if server not in found and self._epochs.get(Pair(server, model)) == use.epoch:
                found[server] = PrefixHit(min(size, use.size), max(0.0, now - use.at))
