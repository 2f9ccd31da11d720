"""API keys: what is kept of one, how one is found again, and the lines of the file that lists them. No IO.

Kept is the SHA-256 digest alone. Slow hashes (argon2, bcrypt) make guessing dear where people choose the secret; a key
of ours is 256 random bits, which nobody guesses at any speed, and a slow hash would be paid for with every request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson

from fleet.security.roles import ANONYMOUS, Identity, Role

PREFIX: Final = "fleet_"
"""What keys of ours begin with, so that people and scanners for leaked secrets know one when they see it."""
RANDOM_BYTES: Final = 32
LONGEST_KEY: Final = 4096
LONGEST_FILE: Final = 4 * 2**20
MOST_KEYS: Final = 10_000
"""Lines of one file, revoked keys included."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_SAYS: Final = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit, and not 'anonymous'"
DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_SHORT: Final = 8
_MOMENT = re.compile(r"[0-9TZ:.+-]{1,40}")
_FIELDS: Final = frozenset(("name", "role", "sha256", "created", "revoked"))
# In a query string, which every server and proxy on the way may log: never read, and never passed on.
_IN_QUERY: Final = re.compile(
    rb"(?:x|api|access|auth|fleet|id|my|secret|private|subscription|client|user|bearer|goog)*"
    rb"(?:key|token|secret|password|passwd|auth|authorization|credentials?|bearer|cookie)"
)
_NOT_LETTERS: Final = re.compile(rb"[^a-z]+")
_PAIRS: Final = re.compile(rb"[&;]")
_HINT: Final = re.compile(rb"key|token|secret|passw|auth|credential|bearer|cookie")
_LAYERS: Final = 8
_PARAMETERS: Final = 64
"""More than any endpoint knows; a query of more that may hold a credential is dropped as a whole."""


def new_key(entropy: bytes) -> str:
    """A key out of `RANDOM_BYTES` random bytes."""
    if len(entropy) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes")
    return PREFIX + base64.urlsafe_b64encode(entropy).decode("ascii").rstrip("=")


def digest_of(key: str) -> str:
    """What is kept of a key, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(name: str) -> bool:
    """Whether a key may be called so: the name stands in logs, and must not be that of people without a key."""
    return NAME.fullmatch(name) is not None and name.lower() != ANONYMOUS


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One line of the file. `created` and `revoked` are moments in ISO 8601; a revoked key opens nothing any more."""

    name: str
    role: Role
    sha256: str = field(repr=False)
    created: str = ""
    revoked: str | None = None


class KeyRing:
    """Whose key is it? The same small time for one key and for thousands.

    Looking through all keys would cost more with every key. So the first bytes of the digest choose the candidate, as
    in any dict, and the whole digest is then compared in constant time. Where the lookup ends early tells something
    about the digest of what was presented only, and nobody can work from there towards a key that has a wanted digest.
    """

    __slots__ = ("_known", "_named")

    def __init__(self, keys: Iterable[tuple[str, Identity]], revoked: Collection[str] = ()) -> None:
        """`keys` are digests and who they stand for; of two with one digest the first counts, revoked ones never."""
        found: dict[str, Identity] = {}
        for digest, who in keys:
            if digest not in revoked:
                found.setdefault(digest, who)
        self._known: dict[bytes, tuple[tuple[bytes, Identity], ...]] = {}
        self._named: dict[str, tuple[tuple[bytes, Identity], ...]] = {}
        for digest, who in found.items():
            whole = bytes.fromhex(digest)
            self._known[whole[:_SHORT]] = (*self._known.get(whole[:_SHORT], ()), (whole, who))
            self._named[who.name] = (*self._named.get(who.name, ()), (whole, who))

    def find(self, presented: bytes) -> Identity | None:
        """Whose key this is; None if it is nobody's."""
        if len(presented) > LONGEST_KEY:
            return None
        digest = hashlib.sha256(presented).digest()
        for known, who in self._known.get(digest[:_SHORT], ()):
            if hmac.compare_digest(known, digest):
                return who
        return None

    def named(self, name: str) -> tuple[tuple[bytes, Identity], ...]:
        """The digests of the keys in use that are called so: one, or one each of the configuration and the file."""
        return self._named.get(name, ())


def ring_with(configured: Iterable[tuple[str, Identity]], stored: Sequence[StoredKey]) -> KeyRing:
    """The keys of the configuration and of the file. A revocation counts wherever the key is written."""
    mine = ((key.sha256, Identity(key.name, key.role)) for key in stored)
    revoked = {key.sha256 for key in stored if key.revoked is not None}
    return KeyRing([*configured, *mine], revoked)


def read_keys(text: str) -> tuple[StoredKey, ...]:
    """The keys of a file: one JSON object per line.

    Raises `ValueError` with a sentence that names the line and quotes nothing of it.
    """
    if len(text) > LONGEST_FILE:
        raise ValueError(f"is longer than {LONGEST_FILE} characters")
    found: list[StoredKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if len(found) == MOST_KEYS:
            raise ValueError(f"holds more than {MOST_KEYS} keys")
        try:
            found.append(_stored(orjson.loads(line)))
        except orjson.JSONDecodeError:
            raise ValueError(f"line {number} is no JSON object") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    _no_doubles(found)
    return tuple(found)


def written(keys: Iterable[StoredKey]) -> str:
    """The text of a file with these keys."""
    lines = []
    for key in keys:
        line = {"name": key.name, "role": key.role.word, "sha256": key.sha256, "created": key.created}
        if key.revoked is not None:
            line["revoked"] = key.revoked
        lines.append(orjson.dumps(line).decode() + "\n")
    return "".join(lines)


def without_keys(query: bytes, is_secret: Callable[[bytes], bool] = lambda pair: False) -> bytes:
    """A query string without what looks like a credential: it would go on to a backend, and into its log.

    Names are compared as a server may read them: decoded, in lower case, without marks. `is_secret` knows better than
    a name does what is in a pair. A query without any stays as it came, byte for byte.
    """
    if not query or not (_hints(query) or is_secret(query)):
        return query
    pairs = query.split(b"&", _PARAMETERS)
    if len(pairs) > _PARAMETERS:
        return b""
    kept = b"&".join(pair for pair in pairs if not (_is_credential(pair) or is_secret(pair)))
    return b"" if is_secret(kept) else kept  # one that is spread over several pairs


def is_credential_name(name: bytes) -> bool:
    """Whether a parameter or field of this name holds a credential; as encoded as may be."""
    *_, name = _decoded(name)
    return _IN_QUERY.fullmatch(_NOT_LETTERS.sub(b"", name.replace(b"+", b" ").lower())) is not None


def _hints(query: bytes) -> bool:
    """Whether it is worth a closer look."""
    return any(_HINT.search(_NOT_LETTERS.sub(b"", each.lower())) for each in _decoded(query))


def _is_credential(pair: bytes) -> bool:
    """Some servers take a semicolon for the end of a pair too, and some decode before they split."""
    names = (each.partition(b"=")[0] for decoded in _decoded(pair) for each in _PAIRS.split(decoded))
    return any(map(is_credential_name, names))


def _decoded(data: bytes) -> Iterator[bytes]:
    """As it stands, and decoded again and again until nothing changes; nobody honest encodes anything nine times."""
    for _ in range(_LAYERS):
        yield data
        if b"%" not in data or (further := unquote_to_bytes(data)) == data:
            return
        data = further
    yield b"key"


def _stored(line: object) -> StoredKey:
    if not isinstance(line, dict):
        raise ValueError("is no JSON object")
    if not line.keys() <= _FIELDS:
        raise ValueError(f"has a field that is none of {', '.join(sorted(_FIELDS))}")
    name, role, digest = (_word(line, each) for each in ("name", "role", "sha256"))
    if not is_name(name):
        raise ValueError(f"name must be {NAME_SAYS}")
    if role not in Role.words():
        raise ValueError(f"role must be one of {', '.join(Role.words())}")
    if not DIGEST.fullmatch(digest):
        raise ValueError("sha256 must be 64 hexadecimal digits in lower case")
    revoked = _moment(line, "revoked") if line.get("revoked") is not None else None
    return StoredKey(name, Role.of(role), digest, _moment(line, "created"), revoked)


def _word(line: dict[str, object], name: str) -> str:
    value = line.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")
    return value


def _moment(line: dict[str, object], name: str) -> str:
    value = _word(line, name)
    if value and not _MOMENT.fullmatch(value):
        raise ValueError(f"{name} must be a moment in ISO 8601")
    return value


def _no_doubles(keys: Sequence[StoredKey]) -> None:
    names: set[str] = set()
    digests: set[str] = set()
    secret = {key.sha256 for key in keys}
    if any(digest_of(key.name) in secret for key in keys):
        raise ValueError("a name is a key itself, and names stand in logs and metrics")
    for key in keys:
        if key.sha256 in digests:
            raise ValueError(f"one key is listed twice, the second time as {key.name}")
        digests.add(key.sha256)
        if key.revoked is None:
            if key.name in names:
                raise ValueError(f"two keys in use are called {key.name}")
            names.add(key.name)
