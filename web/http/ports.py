"""The fleet's faces: what each port is for, and which of its applications answers there."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "fleet.face"
"""Where the scope says on which face a request came in."""


class Face(enum.Enum):
    """One port of the fleet's, by the name that its setting begins with."""

    PROXY = "proxy"
    ORCHESTRATOR = "orchestrator"
    DASHBOARD = "dashboard"
    METRICS = "metrics"

    @property
    def infers(self) -> bool:
        """Whether models can be used through it."""
        return self is not Face.METRICS

    @classmethod
    def of_setting(cls, setting: str) -> Face:
        """The face of a port, by the key that says which port it is; anything unknown is the proxy."""
        name = setting.removeprefix("server.").removesuffix("_port")
        return cls(name) if name in _NAMES else cls.PROXY


_NAMES: Final = frozenset(face.value for face in Face)


def face_of(scope: Any) -> Face:
    """The face on which a request came in."""
    face = scope.get(KEY)
    return face if isinstance(face, Face) else Face.PROXY


class Faces:
    """An ASGI callable: each request goes to the application of its face. The first one is told of start and end."""

    def __init__(self, apps: Mapping[Face, Any]) -> None:
        self._apps = apps
        self._first = next(iter(apps.values()))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._first if scope["type"] == "lifespan" else self._apps[face_of(scope)]
        await app(scope, receive, send)
