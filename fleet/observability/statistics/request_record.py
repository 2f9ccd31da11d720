"""What attempts of finished requests say of themselves, for all who count or draw them."""

from __future__ import annotations

from typing import Protocol


class RequestAttempt(Protocol):
    """One attempt. Times in seconds on the caller's clock; `first_byte` is None if nothing came."""

    @property
    def server(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def started(self) -> float: ...
    @property
    def first_byte(self) -> float | None: ...
    @property
    def ended(self) -> float: ...
