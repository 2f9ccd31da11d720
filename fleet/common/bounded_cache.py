"""Tables of what was seen lately: which bound themselves, whoever fills them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(dict[K, V]):
    """A dict that holds at most `most` entries: it forgets all of them when it is full, which takes no bookkeeping.

    For answers that are worth keeping but cost little to work out again.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> None:
        """Remember one more."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value


class LeastRecentlyUsed(OrderedDict[K, V]):
    """A dict that holds at most `most` entries, in the order of their use: the one used longest ago goes first.

    Only `touch` and `put` use an entry; reading one does not. A plain dict would do the same in fewer bytes, but its
    oldest key is found by walking over the holes of all that went before it: when strangers fill a table of 16,384,
    that costs six times as much.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def touch(self, key: K, make: Callable[[], V]) -> V:
        """The entry of a key, made if need be; it is the latest now."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        else:
            self.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> K | None:
        """Set the entry of a key, which is the latest now; returns the key that had to go for it, if one had to."""
        self[key] = value
        self.move_to_end(key)
        return self.popitem(last=False)[0] if len(self) > self._most else None
