from __future__ import annotations

from fleet.common.bounded_cache import Recent


def test_it_never_holds_more_than_it_may_and_always_the_latest() -> None:
    table = Recent[int, int](3)
    for number in range(10):
        table.keep(number, -number)
        assert len(table) <= 3
        assert table.get(number) == -number
