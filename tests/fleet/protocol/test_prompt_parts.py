from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.prompt_parts import LONGEST, LONGEST_SESSION, PromptParts, prompt_parts
from fleet.scheduling.estimates.affinity.prompt_links import FIELDS


def parts(body: Any, *headers: tuple[bytes, bytes]) -> PromptParts:
    return prompt_parts(orjson.dumps(body), headers)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"model": "m", "prompt": "hi", "system": "be kind"}, {"prompt": b'"hi"', "system": b'"be kind"'}),
        ({"messages": [{"role": "user"}], "tools": []}, {"messages": b'[{"role":"user"}]', "tools": b"[]"}),
        ({"input": "embed me"}, {"input": b'"embed me"'}),
        ({"input": "hi", "instructions": "briefly"}, {"input": b'"hi"', "instructions": b'"briefly"'}),
        ({"prompt": "hi", "context": [1, 2], "system": None}, {"prompt": b'"hi"', "context": b"[1,2]"}),
        ({"model": "m"}, {}),
    ],
)
def test_the_parts_of_a_prompt_are_its_raw_values(body: dict[str, Any], fields: dict[str, bytes]) -> None:
    assert parts(body).fields == fields


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({"options": {"num_predict": 7}}, 7),
        ({"options": {"num_predict": -1}}, None),
        ({"options": {"num_predict": 2.5}}, None),
        ({"options": {"num_predict": "7"}}, None),
        ({"options": [1]}, None),
        ({"options": None}, None),
        ({"max_tokens": 9}, 9),
        ({"max_completion_tokens": 8, "max_tokens": None}, 8),
        ({"max_output_tokens": 6, "max_tokens": 9}, 6),
        ({"max_tokens": 10**15}, None),
        ({}, None),
    ],
)
def test_how_long_the_answer_may_get(body: dict[str, Any], most: int | None) -> None:
    assert parts(body).most_tokens == most


@pytest.mark.parametrize(
    ("body", "headers", "kind", "session"),
    [
        ({}, [(b"x-session-id", b"s1")], "x-session-id", "s1"),
        ({}, [(b"x-openwebui-chat-id", b"c1")], "x-openwebui-chat-id", "c1"),
        ({"prompt_cache_key": "k"}, [], "prompt_cache_key", "k"),
        ({"metadata": {"user_id": "u"}}, [], "user_id", "u"),
        ({"prompt_cache_key": "k", "metadata": {"user_id": "u"}}, [], "prompt_cache_key", "k"),
        ({"prompt_cache_key": "k"}, [(b"x-session-id", b"s1")], "x-session-id", "s1"),
        ({"prompt_cache_key": 5, "metadata": {"user_id": "u"}}, [], "user_id", "u"),
        ({"prompt_cache_key": "k" * 2000}, [], "", ""),
        ({"metadata": "none"}, [(b"x-session-id", b"")], "", ""),
        ({}, [], "", ""),
    ],
)
def test_what_a_client_calls_a_session(
    body: dict[str, Any], headers: list[tuple[bytes, bytes]], kind: str, session: str
) -> None:
    found = parts(body, *headers)
    assert (found.session_kind, found.session) == (kind, session)


def test_a_long_name_of_a_session_is_cut() -> None:
    assert len(parts({}, (b"x-session-id", b"\xff" * 9000)).session) == LONGEST_SESSION


@given(st.binary(max_size=300))
def test_any_bytes_say_something_or_nothing(body: bytes) -> None:
    assert prompt_parts(body).fields.keys() <= {*FIELDS}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"prompt":', b"\xff", b"[" * 100_000])
def test_what_is_no_object_says_nothing(body: bytes) -> None:
    assert prompt_parts(body) == PromptParts()


def test_a_body_that_is_too_long_says_only_what_its_headers_say() -> None:
    found = prompt_parts(orjson.dumps({"prompt": "x" * LONGEST}), [(b"x-session-id", b"s")])
    assert (found.fields, found.session) == ({}, "s")


def test_every_part_that_is_hashed_is_found() -> None:
    assert [*parts({name: name for name in FIELDS}).fields] == [*FIELDS]
