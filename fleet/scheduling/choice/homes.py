"""Where each model is loaded, over the whole fleet, and with which options: who is thrown out may have another home."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import TypeVar

from fleet.common.ids import ModelName, ServerId

Key = TypeVar("Key")


class Homes:
    """Kept by whoever knows of each server what is loaded there. Bounded by what servers are seen to hold."""

    def __init__(self) -> None:
        self._at: dict[ServerId, dict[ModelName, Hashable]] = {}
        self._many: Counter[ModelName] = Counter()
        self._alike: Counter[tuple[ModelName, Hashable]] = Counter()

    def put(self, server: ServerId, models: Mapping[ModelName, Hashable]) -> None:
        """This is what the server holds, with these options; whatever it held before."""
        self.forget(server)
        for model, options in models.items():
            self.add(server, model, options)

    def add(self, server: ServerId, model: ModelName, options: Hashable) -> None:
        """The server has loaded it, in place of one with other options if it had one."""
        self.drop(server, model)
        self._at.setdefault(server, {})[model] = options
        self._many[model] += 1
        self._alike[model, options] += 1

    def drop(self, server: ServerId, model: ModelName) -> None:
        """The server does not hold it any more."""
        held = self._at.get(server)
        if held is None or model not in held:
            return
        _less(self._many, model)
        _less(self._alike, (model, held.pop(model)))

    def forget(self, server: ServerId) -> None:
        """The server is gone."""
        for model in list(self._at.get(server, ())):
            self.drop(server, model)
        self._at.pop(server, None)

    def others(self, server: ServerId, model: ModelName) -> int:
        """How many other servers hold it, with whichever options."""
        return self._many[model] - (model in self._at.get(server, ()))

    def others_alike(self, server: ServerId, model: ModelName) -> int:
        """How many other servers hold it with the options that it has here."""
        held = self._at.get(server)
        if held is None or model not in held:
            return 0
        return self._alike[model, held[model]] - 1


def _less(counter: Counter[Key], key: Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
