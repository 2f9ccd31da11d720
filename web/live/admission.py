"""Who may watch: operators. Judged when a client connects, and again and again, because keys can be revoked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleet.common.errors import FleetError
from fleet.protocol.call import Headers
from fleet.security.api_keys import LONGEST_KEY
from fleet.security.roles import ANONYMOUS, Role
from web.admin.role_enforcement import RoleTooLow
from web.security import api_key_auth
from web.security.request_gate import Guarded
from web.security.session_cookies import Shown

NEEDED: Final = Role.OPERATOR
"""The feed names servers and models, as the admin API does."""
_FIELDS: Final = frozenset((b"authorization", b"x-api-key", b"api-key"))


class Credentials:
    """What one client has shown: in the head of its first request, and in its first packet.

    Browsers can only show a key in the packet; or in the head a pass, if they have logged in.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], system: Guarded, held: Shown | None = None) -> None:
        self._shown = {"headers": [pair for pair in headers if pair[0] in _FIELDS], api_key_auth.PASS_KEY: held}
        self._token: Headers = ()
        self._system = system

    def show(self, token: object) -> None:
        """The `token` of a CONNECT; anything but a text is nothing."""
        known = isinstance(token, str) and 0 < len(token) <= LONGEST_KEY
        self._token = ((b"x-api-key", str(token).encode(errors="replace")),) if known else ()

    def refusal(self) -> FleetError | None:
        """Why this client may not watch, by the configuration and the keys of now."""
        who = api_key_auth.identity(self._token, self._system)
        if who.name == ANONYMOUS:
            who = api_key_auth.visitor(self._shown, self._system)
        if who.role >= NEEDED:
            return None
        if self._system.config.security.keys_required and who.name == ANONYMOUS:
            return api_key_auth.refusal("/socket.io/", (), self._system)
        return RoleTooLow(NEEDED, who)
