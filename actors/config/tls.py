"""TLS for the listeners: a context from the two files of `server.tls`, or one sentence on what is wrong with them."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final, NoReturn

from fleet.config import Config

CERTIFICATE: Final = "server.tls.certificate"
KEY: Final = "server.tls.key"

_CERTIFICATE_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY_PEM = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
# One mistake, several words for it: depends on the kinds of the keys and on the version of OpenSSL.
_MISMATCHES: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


class TlsUnusable(Exception):
    """The files of `server.tls` cannot be used. The message is one sentence for the operator, naming the setting."""


class _Protected(Exception):
    """OpenSSL wants a password for the key."""


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """What a listener needs to speak TLS, 1.2 and above, with HTTP/1.1 inside.

    `certificate` and `key` are paths of PEM files, the first with the whole chain. Raises TlsUnusable; never asks for
    a password.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs a server much and a client nothing
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Protected:
        remedy = "write one without with `openssl pkey`, readable by the fleet only"
        raise TlsUnusable(f"{KEY}: {key} is protected by a password, which cannot be given; {remedy}") from None
    except (OSError, ValueError) as error:
        raise TlsUnusable(_fault(error, certificate, key)) from error
    return context


def secured(config: Config) -> ssl.SSLContext | None:
    """What the listeners need for TLS, None without. Raises TlsUnusable."""
    files = config.server.tls
    return server_context(files.certificate, files.key) if files.enabled else None


def _no_password() -> NoReturn:
    """Stands in for OpenSSL's own way, which is to ask on the terminal and to wait."""
    raise _Protected


def _fault(error: Exception, certificate: str, key: str) -> str:
    """OpenSSL's errors name no file, so the files are looked at again."""
    found = _file_fault(CERTIFICATE, certificate, _CERTIFICATE_PEM, "certificate")
    found = found or _file_fault(KEY, key, _KEY_PEM, "private key")
    if found:
        return found
    reason = getattr(error, "reason", None)
    if reason in _MISMATCHES:
        return (
            f"{KEY}: {key} does not belong to the first certificate in {certificate} ({CERTIFICATE}), "
            "which must be the server's own"
        )
    if reason is None:
        damaged = (CERTIFICATE, certificate) if _is_damaged(certificate) else (KEY, key)
        return f"{damaged[0]}: {damaged[1]} is damaged, or of a kind that OpenSSL does not know"
    return f"{CERTIFICATE} and {KEY}: OpenSSL refuses {certificate} with {key}: {reason.lower().replace('_', ' ')}"


def _file_fault(setting: str, path: str, label: re.Pattern[bytes], what: str) -> str | None:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no possible path"
        return f"{setting}: cannot read {path}: {why}"
    return None if label.search(content) else f"{setting}: {path} holds no {what} in PEM format"


def _is_damaged(certificate: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=certificate)
    except OSError:
        return True
    return False
