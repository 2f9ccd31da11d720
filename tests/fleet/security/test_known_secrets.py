"""Secrets in texts: found wherever they stand. How the time grows is in bench/growth."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import Config
from fleet.security.api_keys import digest_of, new_key
from fleet.security.known_secrets import REDACTED, Secrets, one_of, texts_of

OWN = new_key(b"k" * 32)
PLAIN = "a.plain+key(with)marks"
LONGER = PLAIN + "-longer"
HASHED = "own-key~of:somebody"
SECRETS = Secrets([PLAIN, LONGER, "short"], lambda key: True if digest_of(key.decode()) == digest_of(HASHED) else None)

TEXTS = [
    (f"drained with {PLAIN}", f"drained with {REDACTED}"),
    (f"x{PLAIN}y", f"x{REDACTED}y"),
    (f"{PLAIN}{LONGER}", f"{REDACTED}{REDACTED}"),
    (f"key={OWN}, sorry", f"key={REDACTED}, sorry"),
    (f"abc{OWN}", f"abc{REDACTED}"),
    (f"'{HASHED}'", f"'{REDACTED}'"),
    (f"a {HASHED}; b", f"a {REDACTED}; b"),
    ("see http://user:pass@gpu1:11434/x", f"see http://{REDACTED}@gpu1:11434/x"),
    ("nothing short of a miracle", "nothing short of a miracle"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "clean"), TEXTS)
def test_a_text_of_people_loses_every_key_in_it(text: str, clean: str) -> None:
    assert SECRETS.cleaned(text) == clean


def test_a_key_that_was_shown_is_known_from_then_on() -> None:
    secrets = Secrets(())
    assert secrets.scrubbed("xx-shown-key-yy") == "xx-shown-key-yy"
    for n in range(1000):
        secrets.shown(f"shown-{n}-before")
    secrets.shown("shown-key")
    assert secrets.scrubbed("xx-shown-key-yy") == f"xx-{REDACTED}-yy"


@given(st.lists(st.text("ab+(", min_size=8, max_size=12), min_size=1, max_size=20), st.text("ab+(", max_size=30))
def test_one_expression_finds_what_many_searches_find(keys: list[str], text: str) -> None:
    pattern = one_of(keys)
    assert pattern is not None
    for key in keys:
        assert pattern.fullmatch(key)
    assert (pattern.search(text) is not None) == any(key in text for key in keys)


def test_the_secrets_of_a_configuration_are_all_its_secret_texts() -> None:
    config = Config.model_validate(
        {
            "servers": [{"id": "a", "url": "http://a", "api_key": "key-of-a-server"}],
            "security": {"api_keys": ["key-of-the-fleet"]},
        }
    )
    assert {"key-of-a-server", "key-of-the-fleet"} <= set(texts_of(config))


def test_patterns_are_no_pattern_for_nothing() -> None:
    assert one_of(["short", ""]) is None
    assert isinstance(one_of(["long-enough"]), re.Pattern)
