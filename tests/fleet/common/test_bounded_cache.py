from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.common.bounded_cache import LeastRecentlyUsed, Recent


def test_it_never_holds_more_than_it_may_and_always_the_latest() -> None:
    table = Recent[int, int](3)
    for number in range(10):
        table.keep(number, -number)
        assert len(table) <= 3
        assert table.get(number) == -number


def test_the_entry_used_longest_ago_makes_room() -> None:
    table = LeastRecentlyUsed[str, int](2)
    assert (table.put("a", 1), table.put("b", 2), table.touch("a", lambda: 9)) == (None, None, 1)
    assert table.get("b") == 2  # reading is no use
    assert table.put("c", 3) == "b"
    assert table.put("a", 4) is None
    assert list(table.items()) == [("c", 3), ("a", 4)]
    assert (table.touch("d", lambda: 5), list(table)) == (5, ["a", "d"])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60), st.integers(1, 5))
def test_a_bounded_table_is_the_last_keys_used(uses: list[tuple[bool, int]], most: int) -> None:
    table = LeastRecentlyUsed[int, int](most)
    for touched, key in uses:
        if touched:
            table.touch(key, lambda: 0)
        else:
            table.put(key, 0)
    latest = list(dict.fromkeys(key for _, key in reversed(uses)))
    assert list(table) == latest[:most][::-1]
