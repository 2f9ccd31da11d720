"""How Quart says that the client of a websocket has gone: an error since 0.23; before, it cancels the view."""

from __future__ import annotations

from typing import Final

import quart.wrappers.base

_error = getattr(quart.wrappers.base, "ClientDisconnectedError", None)
GONE: Final[tuple[type[Exception], ...]] = (_error,) if _error else ()
