"""The configuration in effect: one immutable value, swapped as a whole, and those who are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from fleet.config import Config, ServerSpec

Follower = Callable[[Config, Config], None]
"""Called with what was in effect before, and with what is from now on."""


@dataclass(slots=True)
class Reloads:
    """How reading the configuration anew went. `since` (epoch seconds) and `text` while the file cannot be used."""

    succeeded: int = 0
    failed: int = 0
    at: float | None = None
    """When one succeeded last, epoch seconds."""
    since: float | None = None
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether the last one did."""
        return self.since is None

    def succeed(self, at: float) -> None:
        """One has taken effect."""
        self.succeeded += 1
        self.at = at

    def fail(self, since: float, text: str, *, again: bool) -> None:
        """The file cannot be used; `again`: for the reasons that are counted already."""
        self.since, self.text = since, text
        self.failed += not again

    def recover(self) -> None:
        """The file can be used again."""
        self.since, self.text = None, ""


class ConfigRef:
    """Where everybody reads the configuration, each time it matters: who keeps a copy of something follows it.

    Writers: `actors.config.reconfigure`, and of the servers alone the membership.
    """

    __slots__ = ("_followers", "current", "reloads")

    def __init__(self, config: Config) -> None:
        self.current = config
        self.reloads = Reloads()
        self._followers: list[Follower] = []

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Tell somebody of every change that comes, in its turn. It must not fail.

        Returns the undoing of that, for who ends before the fleet does; once.
        """
        self._followers.append(follower)
        return partial(self._followers.remove, follower)

    def put(self, config: Config) -> None:
        """This is in effect now."""
        self.current = config

    def put_servers(self, servers: Iterable[ServerSpec]) -> None:
        """These are the servers now; of that nobody is told, since whoever needs them asks `Servers`."""
        self.current = self.current.model_copy(update={"servers": tuple(servers)})

    def tell(self, before: Config) -> None:
        """Tell all who follow that what was `before` is in effect no more."""
        for follower in tuple(self._followers):
            follower(before, self.current)
