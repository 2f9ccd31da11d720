"""A table of bounded size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.common.lru_table import LruTable


def test_the_entry_that_was_used_longest_ago_goes() -> None:
    table: LruTable[str, list[int]] = LruTable(2)
    first = table.use("a", list)
    table.put("b", [2])
    assert table.use("a", list) is first
    table.put("c", [3])
    assert list(table) == ["a", "c"]


def test_reading_is_no_use() -> None:
    table: LruTable[str, int] = LruTable(2)
    table.put("a", 1)
    table.put("b", 2)
    assert table["a"] == table.get("a") == 1
    table.put("c", 3)
    assert list(table) == ["b", "c"]


def test_who_puts_is_told_which_key_had_to_go() -> None:
    table: LruTable[str, int] = LruTable(1)
    assert (table.put("a", 1), table.put("a", 2), table.put("b", 3)) == (None, None, "a")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(1, 5))
def test_it_never_holds_more_and_always_what_came_last(steps: list[tuple[bool, int]], most: int) -> None:
    table: LruTable[int, int] = LruTable(most)
    model: list[int] = []
    for put, key in steps:
        if put:
            table.put(key, key)
        else:
            assert table.use(key, lambda key=key: key) == key  # type: ignore[misc]
        model = [each for each in model if each != key][-(most - 1) :] if most > 1 else []
        model.append(key)
        assert list(table) == model
