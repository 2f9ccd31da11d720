"""What the configuration says of servers, and what the admin API has changed of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.growth.measure import MOST, Case, grown
from fleet.common.ids import ServerId
from fleet.config import ServerSpec
from fleet.scheduling.server_overrides import document, effective, fingerprint, plain


def spec(name: str, port: int = 1, **more: object) -> ServerSpec:
    return ServerSpec.model_validate({"id": name, "url": f"http://{name}.internal:{port}", **more})


A, B, C = spec("a"), spec("b"), spec("c")
ADDED = document(C, None)
REMOVED = document(None, A)


def test_what_the_file_says_needs_no_document() -> None:
    assert document(A, A) is None
    assert document(None, None) is None


def test_without_documents_the_file_holds() -> None:
    assert effective([A, B], {}) == ((A, B), [])


def test_added_changed_and_removed_servers_lie_over_the_file() -> None:
    changed = spec("b", max_concurrency=9, api_key="sekret-key")
    kept = {"a": REMOVED, "b": document(changed, B), "c": ADDED}
    assert effective([A, B], {key: doc for key, doc in kept.items() if doc}) == ((changed, C), [])


def test_an_entry_of_the_file_that_was_edited_since_wins() -> None:
    kept = {"a": REMOVED, "b": document(spec("b", max_concurrency=9), B)}
    edited = [spec("a", priority=7), spec("b", priority=7)]
    assert effective(edited, {key: doc for key, doc in kept.items() if doc}) == (tuple(edited), [])


def test_a_server_that_left_the_file_does_not_come_back_because_the_api_had_changed_it() -> None:
    doc = document(spec("b", max_concurrency=9), B)
    assert doc is not None
    assert effective([A], {"b": doc}) == ((A,), [])


def test_a_kept_server_whose_url_is_taken_is_left_out_and_told() -> None:
    clash = document(spec("c").model_copy(update={"url": "http://A.internal:1/"}), None)
    assert clash is not None
    found, problems = effective([A], {"c": clash})
    assert found == (A,)
    assert problems == ["server 'c' was kept, but 'a' has its id or its URL"]


def test_a_new_server_of_the_file_was_left_out_because_the_api_had_given_its_url_away() -> None:
    moved = document(A.model_copy(update={"url": B.url}), A)
    assert moved is not None
    found, problems = effective([A, B], {"a": moved})
    assert found == (A, B)
    assert problems == ["server 'a' was kept, but 'b' has its id or its URL"]
    assert effective([B, A], {"a": moved})[0] == (B, A)


def test_two_servers_that_swapped_urls_stay_swapped() -> None:
    one, two = A.model_copy(update={"url": B.url}), B.model_copy(update={"url": A.url})
    kept = {"a": document(one, A), "b": document(two, B)}
    assert effective([A, B], {key: doc for key, doc in kept.items() if doc}) == ((one, two), [])


def test_a_document_under_another_servers_name_made_two_of_one_id() -> None:
    stray = document(spec("c", port=2), None)
    assert stray is not None
    found, problems = effective([A], {"c": document(C, None) or {}, "x": stray})
    assert found == (A, C)
    assert problems == ["what was kept of server 'x' cannot be read"]


def test_a_thousand_servers_were_compared_with_each_other_for_seconds() -> None:
    def of(many: list[ServerSpec]) -> None:
        assert effective(many, {"c": document(C, None) or {}})[0] == (*many, C)

    growth = grown(Case("servers", 500, lambda size: [spec(f"s{number}") for number in range(size)], of))
    assert growth.ratio <= MOST, growth


def test_what_cannot_be_read_is_told_and_the_file_holds() -> None:
    broken: dict[str, dict[str, Any]] = {
        "a": {"spec": {"id": "a"}, "base": fingerprint(A)},
        "z": {"spec": {"url": 3}, "base": None},
    }
    found, problems = effective([A], broken)
    assert found == (A,)
    assert problems == [f"what was kept of server '{name}' cannot be read" for name in "az"]


def test_the_fingerprint_tells_keys_apart_and_shows_none() -> None:
    with_key, other = spec("a", api_key="sekret-key"), spec("a", api_key="other-key")
    assert len({fingerprint(each) for each in (A, with_key, other)}) == 3
    assert "sekret" not in fingerprint(with_key)
    assert plain(with_key)["api_key"] == "sekret-key"


specs = st.builds(
    spec,
    st.sampled_from("abcdefg"),
    st.integers(1, 3),
    max_concurrency=st.integers(1, 4),
    priority=st.integers(-1, 1),
)
lists = st.lists(specs, max_size=5, unique_by=(lambda each: each.id, lambda each: each.url))


@given(lists, lists)
def test_documents_of_any_two_fleets_bring_the_second_back(base: list[ServerSpec], now: list[ServerSpec]) -> None:
    before, after = ({each.id: each for each in group} for group in (base, now))
    kept = {
        str(name): doc for name in before.keys() | after.keys() if (doc := document(after.get(name), before.get(name)))
    }
    found, problems = effective(base, kept)
    assert {each.id: each for each in found} == after
    assert not problems
    assert [each.id for each in found] == sorted(after, key=lambda name: _place(base, name, list(kept)))


def _place(base: list[ServerSpec], name: ServerId, kept: list[str]) -> tuple[int, int]:
    listed = [each.id for each in base]
    return (0, listed.index(name)) if name in listed else (1, kept.index(name))
