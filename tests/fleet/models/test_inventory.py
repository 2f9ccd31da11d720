"""What is kept of a server's lists: the rows that are models, whatever else stands in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.common.ids import ServerId
from fleet.models import inventory, merged_catalog
from fleet.models.merged_catalog import ServerCatalog

ODD: tuple[Any, ...] = (None, True, "", "x y", "-1", -1, 1.5, [], {}, [None], {"a": 1}, "a\nb", " n\n", "y" * 2000)


def rows(*given: object) -> list[dict[str, Any]]:
    """As a server's answer brings them."""
    return inventory.rows(inventory.mapping(json.dumps({"models": given}).encode()))


def listed(*given: object) -> list[tuple[object, object]]:
    """As everybody's list shows them."""
    merged = merged_catalog.tags([ServerCatalog(ServerId("a"), True, rows(*given))])
    return [(row["name"], row["model"]) for row in merged]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_a_row_counts_by_whichever_of_its_names_can_be_one(odd: Any) -> None:
    assert listed({"name": odd, "model": "o:latest"}) == [("o:latest", "o:latest")]
    assert listed({"name": "o:latest", "model": odd}) == [("o:latest", "o:latest")]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_a_row_without_any_name_costs_only_itself(odd: Any) -> None:
    assert rows({"name": odd, "model": odd}, odd, {"name": "o"}) == [{"name": "o"}]


@pytest.mark.parametrize("depth", [10, 253, 260, 600, 1000])
@pytest.mark.parametrize("key", ["extra", "details"])
def test_what_is_nested_too_deeply_to_be_written_is_left_out_of_its_row(key: str, depth: int) -> None:
    body = b'{"models":[{"name":"x","size":5,"%b":%b},{"name":"y"}]}' % (key.encode(), b"[" * depth + b"]" * depth)
    first, second = inventory.rows(inventory.mapping(body))
    assert (first["name"], first["size"], second) == ("x", 5, {"name": "y"})
    assert (key in first) is (depth < 254)


def test_what_is_large_is_left_out_of_a_large_row() -> None:
    assert rows({"name": "x", "size": 5, "junk": "j" * 20_000}) == [{"name": "x", "size": 5}]
