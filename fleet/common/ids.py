"""Names of things, as types of their own, so that one cannot be passed for another."""

from __future__ import annotations

from typing import Final, NamedTuple, NewType

ServerId = NewType("ServerId", str)
ModelName = NewType("ModelName", str)
"""A canonical model name (see `fleet.common.model_names.canonical`); never the text a client sent."""
RequestId = NewType("RequestId", str)

ANY_MODEL: Final = ModelName("")
"""Stands for "no model": requests that any healthy server may answer (bad JSON, missing model)."""


class Pair(NamedTuple):
    """What a breaker guards: one model on one server. Never glued into a string: model names contain colons."""

    server: ServerId
    model: ModelName
