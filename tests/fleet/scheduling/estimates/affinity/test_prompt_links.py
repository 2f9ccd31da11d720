"""The beginnings of a prompt as hashes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.affinity.prompt_links import BLOCK, FIELDS, MOST_LINKS, PromptLinks, image_bytes
from tests.fleet.scheduling.estimates.pairs import M, N

MAKER = PromptLinks(b"k" * 32)
COMPACT, SPACED = (",", ":"), (", ", ": ")


def chat(*texts: str, system: str | None = "be brief") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    said = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    return said if system is None else [{"role": "system", "content": system}, *said]


def raw(messages: object, separators: tuple[str, str] = COMPACT) -> bytes:
    return json.dumps(messages, separators=separators).encode()


def ends_in_common(one: dict[str, bytes], other: dict[str, bytes]) -> int:
    """How many bytes of the first prompt the second is known to share."""
    known = {link.digest for link in MAKER.links(M, other)}
    return max((link.end for link in MAKER.links(M, one) if link.digest in known), default=0)


@pytest.mark.parametrize("separators", [COMPACT, SPACED])
@pytest.mark.parametrize("length", [10, 700, 3000])
def test_the_next_turn_of_a_chat_shares_all_of_the_turn_before(separators: tuple[str, str], length: int) -> None:
    first = raw(chat("a" * length, "b" * length, "c" * length), separators)
    second = raw(chat("a" * length, "b" * length, "c" * length, "d" * length, "e" * length), separators)
    shared = len(first) - 1  # all but the bracket that ends the list
    assert ends_in_common({"messages": first}, {"messages": second}) == shared
    assert ends_in_common({"messages": second}, {"messages": first}) == shared


def test_long_chats_share_nearly_all() -> None:
    texts = [f"{at} " + "x" * 900 for at in range(101)]
    first, second = raw(chat(*texts[:99])), raw(chat(*texts))
    assert len(first) - 2 * BLOCK < ends_in_common({"messages": second}, {"messages": first}) <= len(first)


def test_a_changed_word_ends_what_is_shared_there() -> None:
    one, other = raw(chat("a" * 500, "b", "c" * 500)), raw(chat("a" * 500, "x", "c" * 500))
    assert 500 < ends_in_common({"messages": one}, {"messages": other}) < 600


def test_another_system_text_or_other_tools_share_nothing_behind_them() -> None:
    body = raw(chat("hello"))
    assert ends_in_common({"messages": raw(chat("hi", system="x"))}, {"messages": raw(chat("hi", system="y"))}) == 0
    assert ends_in_common({"tools": b"[1]", "messages": body}, {"tools": b"[2]", "messages": body}) == 0
    assert ends_in_common({"system": b'"x"', "messages": body}, {"system": b'"x"', "messages": raw(chat("bye"))}) >= 3


def test_a_system_message_that_comes_late_changes_the_whole_prompt_because_it_is_rendered_first() -> None:
    said = chat("a" * 500, "b" * 500, "c" * 500)
    late = [*said, {"role": "system", "content": "it is noon"}]
    assert ends_in_common({"messages": raw(late)}, {"messages": raw(said)}) == 0


def test_the_order_of_members_in_the_body_does_not_matter() -> None:
    one = {"messages": raw(chat("hi")), "tools": b"[1]"}
    assert MAKER.links(M, one) == MAKER.links(M, dict(reversed(one.items())))


def test_models_and_keys_share_nothing() -> None:
    fields = {"messages": raw(chat("hello"))}
    own = {link.digest for link in MAKER.links(M, fields)}
    assert own.isdisjoint(link.digest for link in MAKER.links(N, fields))
    assert own.isdisjoint(link.digest for link in PromptLinks(b"other").links(M, fields))
    assert MAKER.session(M, "X-Session-Id", "1") != MAKER.session(N, "X-Session-Id", "1")
    assert MAKER.session(M, "X-Session-Id", "1") != MAKER.session(M, "prompt_cache_key", "1")
    assert MAKER.session(M, "X-Session-Id", "1") == MAKER.session(M, "X-Session-Id", "1")


def test_a_long_prompt_in_one_piece_has_links_on_the_way() -> None:
    text = b'"' + b"once upon a time " * 1000
    assert ends_in_common({"prompt": text + b'the end"'}, {"prompt": text + b'or not"'}) >= len(text) - BLOCK


def test_a_list_of_tokens_from_the_turn_before_is_a_beginning() -> None:
    context = "[" + ",".join(str(at) for at in range(3000))
    first, second = f"{context}]".encode(), f"{context},7,8,9]".encode()
    assert ends_in_common({"context": second}, {"context": first}) > len(first) - BLOCK


def test_nothing_gives_no_links() -> None:
    assert MAKER.links(M, {}) == []
    assert MAKER.links(M, {"messages": b"", "model": b'"m"'}) == []


_values = st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda each: each * 500))


@given(st.dictionaries(st.sampled_from(FIELDS), _values))
def test_any_bytes_give_few_links_in_order(fields: dict[str, bytes]) -> None:
    links = MAKER.links(M, fields)
    ends = [link.end for link in links]
    assert len(links) <= MOST_LINKS
    assert ends == sorted(ends)
    assert all(0 <= end <= sum(map(len, fields.values())) for end in ends)
    assert all(0 <= link.digest < 2**64 for link in links)


@given(
    st.lists(st.text(max_size=200), min_size=1, max_size=12), st.lists(st.text(max_size=200), min_size=1, max_size=4)
)
def test_what_is_shared_never_exceeds_what_is_equal(common: list[str], more: list[str]) -> None:
    one, other = raw(chat(*common)), raw(chat(*common, *more))
    equal = next((at for at in range(len(one)) if one[at] != other[at]), len(one))
    assert ends_in_common({"messages": one}, {"messages": other}) <= equal


IMAGES = [
    (b'[{"role":"user","content":"hello"}]', 0),
    (b'[{"images":["' + b"A" * 1000 + b'"]}]', 1000),
    (b'[{"images":["' + b"A" * 1000 + b'","' + b"B" * 500 + b'"]}]', 1500),
    (b'[{"image_url":{"url":"data:image/png;base64,' + b"A" * 1000 + b'"}}]', 1000),
    (b'[{"source":{"type":"base64","data":"' + b"A" * 1000 + b'"}}]', 1000),
    (b'[{"source":{"data":"short"}}]', 0),
]


@pytest.mark.parametrize(("value", "size"), IMAGES)
def test_images_are_told_from_text(value: bytes, size: int) -> None:
    assert image_bytes(value) == size


@given(
    st.lists(
        st.sampled_from([b'"images":["', b'","', b"A" * 300, b'"data":"', b";base64,", b'"', b"data:"]), max_size=30
    )
)
def test_no_bytes_are_more_images_than_there_are_bytes(parts: list[bytes]) -> None:
    value = b"".join(parts)
    assert 0 <= image_bytes(value) <= len(value)
