"""What of a change may stand in the audit log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from fleet.breakers.gate import Gate
from fleet.config import Config, ServerSpec
from fleet.security.api_keys import new_key
from fleet.security.redaction import CUT, MOST_VALUES, REDACTED, is_secret_name, redacted
from fleet.security.roles import Role

SECRET = "hunter2hunter2"
KEY = new_key(bytes(32))


@pytest.mark.parametrize(
    "name",
    ["key", "apiKey", "api_key", "X-API-Key", "password", "clientSecret", "accessToken", "Authorization", "cookie",
     "credentials", "sha256", "privateKey", "security.api_keys.0", "servers.0.apiKey"],
)  # fmt: skip
def test_what_is_called_like_a_secret_is_one(name: str) -> None:
    assert is_secret_name(name)
    for value in (SECRET, [SECRET], {"a": SECRET}, (SECRET, SECRET)):
        assert SECRET not in json.dumps(redacted({"outer": [{name: value}]}))


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "url",
        "max_tokens",
        "tokensPerSecond",
        "requireApiKey",
        "keysFile",
        "security.keys_file",
        "queue.max_size",
    ],
)
def test_other_names_are_told(name: str) -> None:
    assert redacted({name: "value"}) == {name: "value"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KEY, REDACTED),
        (f"the key {KEY} is mine", f"the key {REDACTED} is mine"),
        (f"Bearer {SECRET}", f"Bearer {REDACTED}"),
        (f"basic {SECRET} x", f"basic {REDACTED} x"),
        (f"http://user:{SECRET}@host/path", f"http://{REDACTED}@host/path"),
        (f"http://host/path?key={SECRET}", f"http://host/path?{REDACTED}"),
        ("http://host:11434/path", "http://host:11434/path"),
        ("llama3:8b", "llama3:8b"),
        ("library/fleet_model", "library/fleet_model"),
    ],
)
def test_text_that_looks_like_a_secret_is_replaced(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted([{"about": text}]) == [{"about": shown}]
    assert list(redacted({text: 1})) == [shown]


def test_text_that_is_known_to_be_a_secret_is_replaced() -> None:
    found = redacted(["a", f"x{SECRET}y"], lambda text: text.replace(SECRET, REDACTED))
    assert found == ["a", f"x{REDACTED}y"]


def test_models_are_told_without_their_secrets() -> None:
    spec = ServerSpec.model_validate({"id": "a", "url": "http://a", "api_key": SECRET, "tags": ["gpu"]})
    shown = redacted(spec)
    assert shown == {
        "id": "a", "url": "http://a", "max_concurrency": 4, "priority": 1, "tags": ["gpu"], "api_key": REDACTED,
    }  # fmt: skip
    assert redacted(SecretStr(SECRET)) == REDACTED
    keys = {"api_keys": [SECRET], "keys": [{"name": "ci", "key": SECRET[1:]}, {"name": "b", "sha256": "ab" * 32}]}
    shown = redacted(Config.model_validate({"security": keys}).security)
    assert shown["api_keys"] == REDACTED
    assert [(each["name"], each["role"]) for each in shown["keys"]] == [("ci", "client"), ("b", "client")]
    assert SECRET[1:] not in json.dumps(shown)
    assert "abab" not in json.dumps(shown)


def test_that_a_secret_came_or_went_is_told() -> None:
    assert redacted({"apiKey": None}) == {"apiKey": None}
    assert redacted({"apiKey": SECRET}) == {"apiKey": REDACTED}


def test_enumerations_are_words_and_strange_things_are_names_of_types() -> None:
    assert redacted([Role.ADMIN, object()]) == ["admin", "object"]
    assert redacted(Gate) == "type"


def test_what_is_big_or_deep_is_cut() -> None:
    assert redacted("x" * 10_000) == "x" * 200 + CUT
    assert len(redacted(list(range(10**5)))) <= MOST_VALUES + 1
    assert len(redacted({str(at): at for at in range(10**5)})) <= MOST_VALUES + 1
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert len(json.dumps(redacted(deep))) < 50
    wide = [[["x" * 1000] * 100] * 100] * 100
    assert len(json.dumps(redacted(wide))) < 60_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES)
def test_whatever_comes_becomes_plain_json(value: Any) -> None:
    json.dumps(redacted(value))
