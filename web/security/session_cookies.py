"""Passes: what a browser keeps instead of a key, once its reader has logged in on the dashboard port.

A pass is signed, names a key, and is worth what that key is worth at the moment it is shown: it ends with the key, with
a log-out, and by itself. It holds neither the key nor its digest, from which a short key could be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadData, URLSafeSerializer

from actors.storage.journal import Document, Journal
from fleet.protocol.call import Headers
from fleet.protocol.headers import field
from fleet.security.api_keys import LONGEST_KEY, KeyRing
from fleet.security.rate_limit import Budgets
from fleet.security.roles import Identity

KIND: Final = "pass"
"""Of what the store keeps: the secret, and passes that were ended before their time."""
LIFE: Final = 30 * 86400
"""Seconds for which a pass is good."""
COOKIE: Final = "fleet_pass"
SAFE_COOKIE: Final = f"__Host-{COOKIE}"
"""Its name where it is for TLS alone: browsers let nobody without TLS set one of that name."""
LOGINS_PER_MINUTE: Final = 20
"""Of one address, whether they succeed or not."""
MOST_ENDED: Final = 10_000
"""Passes that are remembered as ended. One more, and all there are end: nobody gets there but by trying."""

_SECRET: Final = "secret"
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 12
_LONGEST: Final = 1024
_MOST_TRIED: Final = 4
"""Cookies of one name that are looked at: a browser may have several, of different paths."""


class SessionCookies:
    """Makes passes and knows them again, after a restart too if there is a store. Everything is synchronous.

    `clock` is the time of day in seconds since 1970, since passes outlive the process.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self.attempts = Budgets()
        self._journal = journal
        self._clock = clock
        self._secret = b""
        self._ended: dict[str, float] = {}
        journal.keep(KIND, self._document)
        journal.recall(KIND, self._resume)
        if not self._secret:
            self._begin()

    def issue(self, presented: str, ring: KeyRing) -> tuple[str, Identity] | None:
        """A new pass for whoever shows this key, and who that is; None if it is nobody's."""
        key = presented.encode("utf-8", "replace")
        who = ring.find(key) if 0 < len(key) <= LONGEST_KEY else None
        if who is None:
            return None
        mark, until = self._mark(hashlib.sha256(key).digest()), math.ceil(self._clock() + LIFE)
        return self._signer().dumps([who.name, mark, secrets.token_urlsafe(_ID_BYTES), until]), who

    def find(self, token: str, ring: KeyRing) -> Identity | None:
        """Who shows this pass, by the keys of now; None if it is none of ours, or good no more."""
        read = self._read(token)
        if read is None:
            return None
        name, mark, _, _ = read
        for digest, who in ring.named(name):
            if hmac.compare_digest(self._mark(digest).encode(), mark.encode()):
                return who
        return None

    def end(self, token: str) -> None:
        """Let a pass be good no more, wherever there is a copy of it; what is none is ignored."""
        read = self._read(token)
        if read is None:
            return
        now = self._clock()
        for old in [name for name, until in self._ended.items() if until <= now]:
            self._forget(old)
        if len(self._ended) >= MOST_ENDED:
            self._begin()
            return
        self._ended[read[2]] = read[3]
        self._journal.touch(KIND, read[2])

    def _signer(self) -> URLSafeSerializer:
        how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self._secret, salt="fleet.pass", signer_kwargs=how)

    def _read(self, token: str) -> tuple[str, str, str, int] | None:
        """Name and mark of its key, its own id, and until when it is good: only what we have signed ourselves."""
        if len(token) > _LONGEST:
            return None
        try:
            payload = self._signer().loads(token)
        except (BadData, ValueError):
            return None
        match payload:
            case [str(name), str(mark), str(own), int(until)] if until > self._clock() and own not in self._ended:
                return name, mark, own, until
        return None

    def _mark(self, digest: bytes) -> str:
        """What tells one key from another of the same name; says nothing without the secret."""
        return hmac.digest(self._secret, b"key" + digest, "sha256").hex()

    def _begin(self) -> None:
        """A new secret: no pass of before is good any more."""
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._journal.touch(KIND, _SECRET)
        for own in list(self._ended):
            self._forget(own)

    def _forget(self, own: str) -> None:
        del self._ended[own]
        self._journal.touch(KIND, own)

    def _document(self, key: str) -> Document | None:
        if key == _SECRET:
            return {"secret": self._secret.hex()}
        return {"until": self._ended[key]} if key in self._ended else None

    def _resume(self, key: str, document: Document) -> None:
        if key == _SECRET:
            secret = bytes.fromhex(document["secret"])
            if len(secret) != _SECRET_BYTES:
                raise ValueError("not a secret of ours")
            self._secret = secret
        elif (until := float(document["until"])) > self._clock() and len(self._ended) < MOST_ENDED:
            self._ended[key] = until
        else:
            self._journal.touch(KIND, key)


@dataclass(frozen=True, slots=True)
class Shown:
    """A pass that came with a request of a page of ours; it is judged anew whenever somebody asks."""

    passes: SessionCookies
    token: str

    def who(self, ring: KeyRing) -> Identity | None:
        """Who shows it, by the keys of now."""
        return self.passes.find(self.token, ring)


def shown(passes: SessionCookies, headers: Headers, ring: KeyRing) -> Shown | None:
    """The first good pass among the cookies of a request."""
    for token in _tokens(headers):
        if passes.find(token, ring) is not None:
            return Shown(passes, token)
    return None


def _tokens(headers: Headers) -> list[str]:
    line = (field(headers, b"cookie") or b"").decode("latin-1")
    pairs = (pair.strip().partition("=") for pair in line.split(";"))
    found = [value for name, _, value in pairs if name in (SAFE_COOKIE, COOKIE)]
    return found[:_MOST_TRIED]


def cookie(token: str, *, secure: bool) -> str:
    """The Set-Cookie field that hands a pass over; an empty one takes it away. `secure`: there is TLS."""
    life = LIFE if token else 0
    rest = "; Secure" if secure else ""
    name = SAFE_COOKIE if secure else COOKIE
    return f"{name}={token}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{rest}"
