"""Clients that read one certificate authority, not the hundred and forty that the world trusts."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import certifi
import trustme


def trust_one_authority() -> None:
    """Let every client of this process that asks certifi trust one authority that has signed nothing.

    httpx, and the official clients on it, read them all whenever a client is made, plain HTTP or not: 15 to 40 ms.
    What tests say of TLS they say with contexts of their own.
    """
    folder = Path(tempfile.mkdtemp(prefix="authority-of-the-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trustme.CA().cert_pem.write_to_path(str(folder / "authority.pem"))
    certifi.where = lambda: str(folder / "authority.pem")
