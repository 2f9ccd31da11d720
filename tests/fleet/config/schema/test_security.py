"""The section about keys, roles and backends: what is accepted, refused, and never shown."""

from __future__ import annotations

import hashlib

import pytest

from fleet.config import BackendsSection, ConfigError, SecuritySection, load, report, unsafe_listener
from fleet.security.api_keys import StoredKey, digest_of
from fleet.security.roles import Identity, Role
from tests.fleet.config.config_kit import loaded, messages

SECRET = "hunter2hunter2"
DIGEST = hashlib.sha256(b"another-secret").hexdigest()


def section(text: str, **env: str) -> SecuritySection:
    return load(f"security: {text}", env, {}, source="f.yml").config.security


def test_keys_have_names_and_roles_and_come_plain_by_reference_or_as_digests() -> None:
    text = (
        "{api_keys: [plain-old-key], keys: [{name: ci, key: 'env:CI_KEY'}, "
        f"{{name: ops, role: operator, sha256: {DIGEST.upper()}}}, {{name: root, role: admin, key: {SECRET}}}]}}"
    )
    ring = section(text, CI_KEY="from-the-environment").key_ring()
    assert ring.find(b"plain-old-key") == Identity("api_keys[0]", Role.ADMIN)
    assert ring.find(b"from-the-environment") == Identity("ci", Role.CLIENT)
    assert ring.find(b"another-secret") == Identity("ops", Role.OPERATOR)
    assert ring.find(SECRET.encode()) == Identity("root", Role.ADMIN)
    assert ring.find(b"unresolved-reference") is None


def test_the_keys_of_the_file_come_on_top() -> None:
    stored = (StoredKey("filed", Role.CLIENT, digest_of("in-the-file")),)
    assert section("{keys_file: k.jsonl}").key_ring(stored).find(b"in-the-file") == Identity("filed", Role.CLIENT)


@pytest.mark.parametrize(
    ("text", "required"),
    [("{}", False), ("{api_keys: [12345678]}", True), ("{keys: [{name: a, key: '12345678'}]}", True),
     ("{keys_file: k.jsonl}", True), ("{keys_file: k.jsonl, require_api_key: false}", False)],
)  # fmt: skip
def test_keys_of_any_kind_are_required_unless_the_operator_says_no(text: str, required: bool) -> None:
    config = load(f"server: {{host: 0.0.0.0}}\nsecurity: {text}", {}, {}, source="f.yml").config
    assert config.security.keys_required is required
    assert (unsafe_listener(config) is None) is required


BAD = [
    ("{keys: [{name: a}]}", "security.keys.0.key", "exactly one"),
    (f"{{keys: [{{name: a, key: {SECRET}, sha256: {DIGEST}}}]}}", "security.keys.0.key", "exactly one"),
    ("{keys: [{key: '12345678'}]}", "security.keys.0.name", "is missing"),
    ("{keys: [{name: 'a b', key: '12345678'}]}", "security.keys.0.name", "letters, digits"),
    ("{keys: [{name: anonymous, key: '12345678'}]}", "security.keys.0.name", "not 'anonymous'"),
    ("{keys: [{name: a, role: root, key: '12345678'}]}", "security.keys.0.role", "client, operator, admin"),
    (f"{{keys: [{{name: a, sha256: {SECRET}}}]}}", "security.keys.0.sha256", "64 hexadecimal"),
    ("{keys: [{name: a, key: short}]}", "security.keys.0.key", "8 to 4096"),
    ("{keys: [{name: a, key: '12345678'}, {name: a, key: '87654321'}]}", "security.keys.1.name", "another key"),
    ("{api_keys: ['12345678'], keys: [{name: a, key: '12345678'}]}", "security.keys.0", "listed twice"),
    ("{keys: [{name: a, key: 'env:NOWHERE'}]}", "security.keys.0.key", "NOWHERE is not set"),
    ("{keys: [{name: a, sha256: 'env:NOWHERE'}]}", "security.keys.0.sha256", "NOWHERE is not set"),
    ("{keys: [{name: a, key: 'env:N'}, {name: b, key: 'env:N'}]}", "security.keys.1.key", "N is not set"),
    (f"{{keys: [{{name: {SECRET}, key: {SECRET}}}]}}", "security.keys.0.name", "is a key"),
    (f"{{api_keys: [{SECRET}], keys: [{{name: {SECRET}, key: '12345678'}}]}}", "security.keys.0.name", "is a key"),
    ("{require_api_key: true}", "security.require_api_key", "nobody could enter"),
    ("{anonymous_role: root}", "security.anonymous_role", "auto, client, operator, admin"),
    ("{backends: {allowed: ['10.0.0.1/8']}}", "security.backends.allowed.0", "bits beyond"),
    ("{backends: {allowed: ['a b']}}", "security.backends.allowed.0", "host name"),
    ("{backends: {allowed: ['a:80']}}", "security.backends.allowed.0", "host name"),
    ("{backends: {allow_links: true}}", "security.backends.allow_links", "unknown key"),
]


@pytest.mark.parametrize(("text", "path", "words"), BAD)
def test_what_cannot_be_meant_is_refused_at_its_place(text: str, path: str, words: str) -> None:
    found = messages(f"security: {text}")
    assert words in found[path]
    assert not any(SECRET in message for message in found.values())


def test_an_unset_variable_is_one_problem_and_not_three() -> None:
    assert len(messages("security: {keys: [{name: a, key: 'env:N'}, {name: b, sha256: 'env:M'}]}")) == 2


def test_no_report_shows_a_key_or_its_digest() -> None:
    text = f"security: {{api_keys: [{SECRET}], keys: [{{name: a, key: {SECRET}x}}, {{name: b, sha256: {DIGEST}}}]}}"
    shown = report(loaded(text))
    assert SECRET not in shown
    assert DIGEST not in shown
    assert 'security.keys.1.name = "b"' in shown
    with pytest.raises(ConfigError) as caught:
        loaded(text + "\nnope: 1")
    assert SECRET not in str(caught.value)


def test_the_report_says_when_keys_are_given_for_nothing() -> None:
    text = "security: {keys_file: k.jsonl, require_api_key: false}"
    assert "open: security.keys_file" in report(loaded(text))


def test_keys_can_be_given_in_the_environment() -> None:
    keys = '[{"name": "ci", "role": "client", "key": "12345678"}]'
    found = load(None, {"FLEET_SECURITY__KEYS": keys}, {}, source="f.yml").config.security
    assert found.key_ring().find(b"12345678") == Identity("ci", Role.CLIENT)
    with pytest.raises(ConfigError) as caught:
        load(None, {"FLEET_SECURITY__KEYS": SECRET}, {}, source="f.yml")
    assert SECRET not in str(caught.value)


def test_places_are_kept_in_one_spelling() -> None:
    allowed = ["10.0.0.7/32", "FD00:0::/8", "GPU1.Example.", "2001:DB8::1"]
    assert BackendsSection.model_validate({"allowed": allowed}).allowed == (
        "10.0.0.7", "fd00::/8", "gpu1.example", "2001:db8::1",
    )  # fmt: skip
