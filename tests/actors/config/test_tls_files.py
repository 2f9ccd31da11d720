"""The two files of server.tls: what comes of good ones, and what is said of bad ones."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import rsa

from actors.config.tls import TlsUnusable, server_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def leaf(authority: trustme.CA) -> trustme.LeafCert:
    return authority.create_child_ca().issue_cert("localhost")


def chain_of(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaf: trustme.LeafCert) -> None:
    """A folder with c.pem and k.pem, which fit."""
    monkeypatch.chdir(tmp_path)
    Path("c.pem").write_bytes(chain_of(leaf))
    Path("k.pem").write_bytes(leaf.private_key_pem.bytes())


def sentence(certificate: str = "c.pem", key: str = "k.pem") -> str:
    with pytest.raises(TlsUnusable) as caught:
        server_context(certificate, key)
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


class Wire:
    """Both ends of a TLS connection, in memory."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(up, down, server_side=True)
        self.client = client.wrap_bio(down, up, server_hostname="localhost")

    def shake(self) -> ssl.SSLObject:
        """The client's end, after the handshake; raises what either end raises."""
        done = {self.client: False, self.server: False}
        while not all(done.values()):
            for end in done:
                done[end] = done[end] or _step(end)
        return self.client


def _step(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def client_context(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(protocols)
    return context


# ---- good files


@pytest.mark.parametrize(
    ("offered", "chosen"), [(("h2", "http/1.1"), "http/1.1"), (("http/1.1",), "http/1.1"), (("h2",), None), ((), None)]
)
def test_a_client_that_trusts_the_root_gets_through(
    authority: trustme.CA, offered: tuple[str, ...], chosen: str | None
) -> None:
    client = Wire(server_context("c.pem", "k.pem"), client_context(authority, *offered)).shake()
    assert client.selected_alpn_protocol() == chosen
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize(("version", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_1, None)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_from_1_2_on(authority: trustme.CA, version: ssl.TLSVersion, name: str | None) -> None:
    context = client_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    wire = Wire(server_context("c.pem", "k.pem"), context)
    if name is None:
        with pytest.raises(ssl.SSLError):
            wire.shake()
    else:
        assert wire.shake().version() == name


def test_no_client_certificate_is_asked_for_and_no_renegotiation_allowed() -> None:
    context = server_context("c.pem", "k.pem")
    assert context.verify_mode is ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_one_file_may_hold_both(leaf: trustme.LeafCert, authority: trustme.CA) -> None:
    Path("both.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    assert Wire(server_context("both.pem", "both.pem"), client_context(authority)).shake().version()


# ---- bad files


def test_a_missing_file_is_named_with_its_setting() -> None:
    assert sentence(certificate="gone.pem") == "server.tls.certificate: cannot read gone.pem: No such file or directory"
    assert sentence(key="gone.pem") == "server.tls.key: cannot read gone.pem: No such file or directory"
    assert sentence(key=".").startswith("server.tls.key: cannot read .: Is a directory")
    assert sentence(key="a\0b").startswith("server.tls.key: cannot read")


@pytest.mark.parametrize("content", [b"", b"\x30\x82\x01\x0a\x00\xff", b"ssh-ed25519 AAAA me\n"])
def test_what_is_not_pem(content: bytes) -> None:
    Path("x.pem").write_bytes(content)
    assert sentence(certificate="x.pem") == "server.tls.certificate: x.pem holds no certificate in PEM format"
    assert sentence(key="x.pem") == "server.tls.key: x.pem holds no private key in PEM format"


def test_the_two_files_swapped() -> None:
    assert sentence("k.pem", "c.pem") == "server.tls.certificate: k.pem holds no certificate in PEM format"


@pytest.mark.parametrize(("setting", "what"), [("certificate", "CERTIFICATE"), ("key", "PRIVATE KEY")])
def test_damaged_pem(setting: str, what: str) -> None:
    Path("x.pem").write_text(f"-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n")
    assert sentence(**{setting: "x.pem"}).startswith(f"server.tls.{setting}: x.pem is damaged")


@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_a_key_of_another_certificate(kind: trustme.KeyType, authority: trustme.CA) -> None:
    other = authority.issue_cert("localhost", key_type=kind)
    Path("other.pem").write_bytes(other.private_key_pem.bytes())
    found = sentence(key="other.pem")
    assert found.startswith("server.tls.key: other.pem does not belong to the first certificate in c.pem")


def test_a_chain_in_the_wrong_order(leaf: trustme.LeafCert) -> None:
    Path("c.pem").write_bytes(b"".join(blob.bytes() for blob in reversed(leaf.cert_chain_pems)))
    assert "must be the server's own" in sentence()


ENCRYPTED: list[Any] = [
    pytest.param(ser.PrivateFormat.PKCS8, id="ENCRYPTED PRIVATE KEY"),
    pytest.param(ser.PrivateFormat.TraditionalOpenSSL, id="Proc-Type: 4,ENCRYPTED"),
]


@pytest.mark.parametrize("style", ENCRYPTED)
def test_a_protected_key_is_refused_and_nobody_is_asked(style: ser.PrivateFormat, leaf: trustme.LeafCert) -> None:
    key = ser.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    Path("k.pem").write_bytes(key.private_bytes(ser.Encoding.PEM, style, ser.BestAvailableEncryption(b"hunter2")))
    found = sentence()
    assert found.startswith("server.tls.key: k.pem is protected by a password")
    assert "openssl pkey" in found


def test_a_key_too_weak_for_openssl(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(self: ssl.SSLContext, *_: object, **__: object) -> None:
        error = ssl.SSLError(1, "[SSL: EE_KEY_TOO_SMALL] ee key too small")
        error.reason = "EE_KEY_TOO_SMALL"
        raise error

    # Which keys are too weak depends on how OpenSSL was built.
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", weak)
    assert sentence().endswith("OpenSSL refuses c.pem with k.pem: ee key too small")


def test_the_content_of_a_key_is_never_shown() -> None:
    secret = rsa.generate_private_key(65537, 2048).private_bytes(
        ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()
    )
    Path("x.pem").write_bytes(secret.replace(b"MI", b"XX", 1))
    assert secret.splitlines()[3].decode() not in sentence(key="x.pem")
