"""Who may use the fleet, and what the fleet itself may talk to."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from fleet.config.schema.listeners import FilePath, HostName, RateLimitingSection
from fleet.config.schema.problems import Conflicts
from fleet.config.schema.types import STAND_IN, ApiKey, Says, Section
from fleet.config.schema.urls import is_host
from fleet.security.api_keys import DIGEST, NAME_SAYS, KeyRing, StoredKey, digest_of, is_name, ring_with
from fleet.security.client_address import network_of, spelled
from fleet.security.roles import Identity, Role


def _key_name(value: str) -> str:
    if not is_name(value):
        raise ValueError(f"must be {NAME_SAYS}")
    return value


def _digest(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().lower()
    if text != STAND_IN and not DIGEST.fullmatch(text):
        raise ValueError("must be 64 hexadecimal digits: the SHA-256 of the key")
    return SecretStr(text)


def _place(value: str) -> str:
    """A network in its one spelling, or a host name."""
    if re.fullmatch(r"[0-9A-Fa-f:.]*[.:/][0-9A-Fa-f:./]*", value):
        return spelled(network_of(value))
    if not is_host(value):
        raise ValueError("must be a network, an address or a host name, without a port")
    return value.lower().rstrip(".")


RoleName = Literal["client", "operator", "admin"]
KeyName = Annotated[str, Field(max_length=64), AfterValidator(_key_name), Says(NAME_SAYS)]
Digest = Annotated[SecretStr, AfterValidator(_digest), Says("64 hexadecimal digits: the SHA-256 of the key")]
Place = Annotated[
    str,
    Field(max_length=253),
    AfterValidator(_place),
    Says("a network, an address or a host name, such as 10.0.0.0/8 or gpu1.example"),
]


class KeySpec(Section):
    """One named key; either the key itself or its digest."""

    name: KeyName = Field(description="What the audit log calls whoever uses it.")
    role: RoleName = Field(
        "client", description="client: use models; operator: run the fleet; admin: change what the fleet is."
    )
    key: ApiKey | None = Field(None, description="The key, or env:NAME to take it from the environment.")
    sha256: Digest | None = Field(
        None, description="Its SHA-256 instead, in hexadecimal, so that the key itself is written nowhere."
    )

    @property
    def digest(self) -> str:
        """The digest, however the key was given."""
        if self.sha256 is not None:
            return self.sha256.get_secret_value()
        return digest_of(self.key.get_secret_value()) if self.key is not None else ""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise Conflicts([("key", "must be given, or else sha256: exactly one of the two")])
        return self


class BackendsSection(Section):
    """Where servers may live: what their URLs must not point at."""

    allow_private: bool = Field(True, description="Whether loopback and private addresses are fine for servers.")
    allow_link_local: bool = Field(
        False, description="Whether link-local ones are (169.254.0.0/16, fe80::/10); cloud metadata never is."
    )
    allowed: tuple[Place, ...] = Field(
        (), max_length=1000, description="The only networks and host names servers may have; empty = any."
    )


class SecuritySection(Section):
    """Who may use the fleet."""

    require_api_key: bool | None = Field(
        None, description="Whether every request needs a key; none set = yes if there are keys, or a keys_file."
    )
    api_keys: tuple[ApiKey, ...] = Field(
        (), max_length=1000, description="Accepted keys, all of role admin, or env:NAME to take one from there."
    )
    keys: tuple[KeySpec, ...] = Field((), max_length=1000, description="Accepted keys with names and roles.")
    keys_file: FilePath = Field(
        "", description="Path of the file that `fleet keys` writes; followed while running. Empty = none."
    )
    anonymous_role: Literal["auto", "client", "operator", "admin"] = Field(
        "auto",
        description="Role of callers without a key where none is required; auto = admin if only this machine "
        "can call, else client.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Permit listening beyond loopback without API keys; everybody in the network may then use it.",
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        max_length=100,
        description="Names by which browsers may reach a loopback listener without keys, besides local ones; * = any.",
    )
    backends: BackendsSection = Field(BackendsSection(), description="Where servers may live.")
    rate_limiting: RateLimitingSection = Field(RateLimitingSection(), description="Limits per client.")

    @property
    def has_keys(self) -> bool:
        """Whether there are keys, or may be: a file without any yet counts too."""
        return bool(self.api_keys or self.keys or self.keys_file)

    @property
    def keys_required(self) -> bool:
        """Whether a request needs a key: as `require_api_key` says, and without a word from it, if keys are given."""
        return self.has_keys if self.require_api_key is None else self.require_api_key

    def key_ring(self, stored: tuple[StoredKey, ...] = ()) -> KeyRing:
        """Everybody who has a key; `stored` are those of the file. Takes microseconds per key: make it once."""
        plain = [(digest_of(key.get_secret_value()), index) for index, key in enumerate(self.api_keys)]
        known = [(digest, Identity(f"api_keys[{index}]", Role.ADMIN)) for digest, index in plain]
        known += [(key.digest, Identity(key.name, Role.of(key.role))) for key in self.keys]
        return ring_with(known, stored)

    @model_validator(mode="after")
    def _keys_when_required(self) -> Self:
        found = _doubles(self)
        if self.require_api_key and not self.has_keys:
            what = "is on, but security.api_keys is empty, and so are keys and keys_file: nobody could enter"
            found.append(("require_api_key", what))
        if found:
            raise Conflicts(found)
        return self


def _doubles(section: SecuritySection) -> list[tuple[str, str]]:
    """Keys that share a name, or are one and the same: nobody could say who it was, or what it may do."""
    names = Counter(key.name for key in section.keys)
    found = [
        (f"keys.{index}.name", "is the name of another key too: the audit log could not tell them apart")
        for index, key in enumerate(section.keys)
        if names[key.name] > 1
    ]
    plain = {digest_of(key.get_secret_value()) for key in section.api_keys}
    secret = plain | {key.digest for key in section.keys}
    found += [
        (f"keys.{index}.name", "is a key: names stand in logs and metrics, so it must be another word")
        for index, key in enumerate(section.keys)
        if digest_of(key.name) in secret
    ]
    digests = Counter([*(key.digest for key in section.keys), *plain])
    unknown = (STAND_IN, digest_of(STAND_IN))  # the reference that could not be resolved is a problem of its own
    found += [
        (f"keys.{index}", "is a key that is listed twice: keep one")
        for index, key in enumerate(section.keys)
        if digests[key.digest] > 1 and key.digest not in unknown
    ]
    return found
