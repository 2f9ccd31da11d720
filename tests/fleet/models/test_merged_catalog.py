from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common import model_names
from fleet.common.ids import ServerId
from fleet.models import merged_catalog
from fleet.models.merged_catalog import ServerCatalog

A, B, C = ServerId("a"), ServerId("b"), ServerId("c")
D1, D2 = "1" * 64, "2" * 64


def tag(name: str, modified: str = "2026-01-01T00:00:00Z", digest: str = D1, **more: object) -> dict[str, object]:
    return {"name": name, "model": name, "modified_at": modified, "digest": digest, "size": 1, **more}


def loaded(name: str, expires: str, **more: object) -> dict[str, object]:
    return {"name": name, "model": name, "expires_at": expires, "digest": D1, **more}


def server(
    name: ServerId, *tags: dict[str, object], ps: list[dict[str, object]] | None = None, **more: Any
) -> ServerCatalog:
    return ServerCatalog(name, more.pop("healthy", True), tags, ps or [], more.pop("version", None))


def listed(*servers: ServerCatalog) -> list[object]:
    return [row["name"] for row in merged_catalog.tags(servers)]


def test_the_union_has_one_row_per_name_the_newest_verbatim() -> None:
    old = tag("llama3:latest", "2026-01-01T00:00:00.5Z", details={"family": "llama"})
    new = tag("Llama3:latest", "2026-02-01T00:00:00.123456789+02:00", unknown_key=[1])
    assert merged_catalog.tags([server(A, old), server(B, new)]) == [{**new, "servers": [A, B]}]


def test_copies_with_equal_digests_are_both_listed() -> None:
    assert sorted(str(name) for name in listed(server(A, tag("x:latest"), tag("y:latest")))) == ["x:latest", "y:latest"]


def test_the_newest_comes_first_by_whole_seconds_and_else_in_order() -> None:
    rows = [
        tag("a", "2026-01-01T00:00:00.1Z"),
        tag("b", "2026-01-01T00:00:00.9Z"),
        tag("c", "2026-01-01T01:00:01+01:00"),
        tag("d", "2026-01-01T00:00:00.5Z"),
    ]
    assert listed(server(A, *rows)) == ["c", "a", "b", "d"]


def test_unhealthy_servers_count_only_when_there_is_no_other() -> None:
    up, down = server(A, tag("x")), server(B, tag("y"), healthy=False)
    assert listed(up, down) == ["x"]
    assert listed(down) == ["y"]
    assert listed() == []


def test_conflicts_are_names_with_different_digests() -> None:
    servers = [
        server(A, tag("x", digest=D1), tag("y")),
        server(B, tag("X", digest="sha256:" + D2), tag("y")),
        server(C, tag("x", digest=D1), tag("y", digest="")),
    ]
    (conflict,) = merged_catalog.conflicts(servers)
    assert conflict.model == "x:latest"
    assert conflict.holders == {D1: [A, C], D2: [B]}


def test_ps_shows_the_replica_that_expires_last() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"
    first = server(A, ps=[loaded("x", early), loaded("y", "2026-01-01T00:01:00Z")])
    second = server(B, ps=[loaded("x", late, context_length=4096)])
    assert merged_catalog.ps([first, second]) == [
        {**loaded("x", late, context_length=4096), "server": B, "replicas": [A, B]},
        {**loaded("y", "2026-01-01T00:01:00Z"), "server": A, "replicas": [A]},
    ]


def test_ps_does_not_report_from_servers_that_are_down() -> None:
    assert merged_catalog.ps([server(A, ps=[loaded("x", "2026-01-01T00:00:00Z")], healthy=False)]) == []


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        (["0.33.0", "0.9.12", "0.33.1"], "0.9.12"),
        (["v0.33.0-rc1"], "0.33.0"),
        (["0.33.0+build"], "0.33.0"),
        (["0.33", "", None, "latest", "1.2.3.4"], "0.0.0"),
        ([5, "0.1.2"], "0.1.2"),
        (["0.0.0", "0.33.0", "0.12.1"], "0.12.1"),
        (["v0.0.0-dev", "0.33.0"], "0.33.0"),
        (["0.0.0"], "0.0.0"),
        ([], "0.0.0"),
    ],
)
def test_the_version_is_the_lowest_plain_one(versions: list[Any], wanted: str) -> None:
    assert merged_catalog.version([server(A, version=version) for version in versions], "0.0.0") == wanted


def test_the_version_of_a_server_that_is_down_counts_only_alone() -> None:
    down = server(B, version="0.1.0", healthy=False)
    assert merged_catalog.version([server(A, version="0.2.0"), down], "0.0.0") == "0.2.0"
    assert merged_catalog.version([down], "0.0.0") == "0.1.0"


def test_v1_models() -> None:
    servers = [server(A, tag("me/x:7b", "1970-01-02T00:00:00Z"), tag("llama3:latest", "1970-01-01T00:00:05.9Z"))]
    assert merged_catalog.v1_models(servers) == {
        "object": "list",
        "data": [
            {"id": "me/x:7b", "object": "model", "created": 86400, "owned_by": "me"},
            {"id": "llama3:latest", "object": "model", "created": 5, "owned_by": "library"},
        ],
    }
    assert merged_catalog.v1_models([]) == {"object": "list", "data": None}


def test_a_single_v1_model_echoes_the_name_asked_for() -> None:
    servers = [server(A, tag("llama3:latest", "1970-01-02T00:00:00Z"))]
    assert merged_catalog.v1_model("LLAMA3", servers) == {
        "id": "LLAMA3",
        "object": "model",
        "created": 86400,
        "owned_by": "library",
    }
    assert merged_catalog.v1_model("none", servers) is None
    assert merged_catalog.v1_model("a b", servers) is None
    assert merged_catalog.v1_model("", servers) is None


@pytest.mark.parametrize("digest", ["", "abc", None, 5, [], D1])
def test_every_digest_can_be_cut_to_twelve_characters(digest: Any) -> None:
    row = tag("x")
    row["digest"] = digest
    (found,) = merged_catalog.tags([server(A, row)])
    assert len(str(found["digest"])) >= 12
    del row["digest"]
    (found,) = merged_catalog.ps([server(A, ps=[row])])
    assert len(str(found["digest"])) >= 12


@pytest.mark.parametrize("row", [None, 5, "x", [], {}, {"name": 5}, {"name": ""}, {"name": "a b"}, {"model": None}])
def test_rows_without_a_name_are_left_out(row: Any) -> None:
    assert merged_catalog.tags([server(A, row, tag("x"))]) == merged_catalog.tags([server(A, tag("x"))])
    assert merged_catalog.ps([server(A, ps=[row])]) == []


def test_rows_without_the_newer_key_get_it() -> None:
    (row,) = merged_catalog.tags([server(A, {"name": "x"})])
    assert (row["name"], row["model"]) == ("x", "x")
    (row,) = merged_catalog.tags([server(A, {"model": "x"})])
    assert (row["name"], row["model"]) == ("x", "x")


@pytest.mark.parametrize("time", ["", "yesterday", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59-14:00", 5, None, []])
def test_a_time_that_clients_could_not_read_is_mended(time: Any) -> None:
    row = tag("x")
    row["modified_at"] = time
    (found,) = merged_catalog.tags([server(A, row)])
    assert found["modified_at"] in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00")


def test_an_endless_inventory_is_cut() -> None:
    many = [tag(f"m{number}") for number in range(10_010)]
    assert len(merged_catalog.tags([server(A, *many)])) == 10_000


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_ROW = st.dictionaries(
    st.sampled_from(["name", "model", "digest", "modified_at", "expires_at", "x"]),
    _JSON | st.sampled_from(["x", "x:latest", "y", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"]),
)


@given(st.lists(st.tuples(st.booleans(), st.lists(_ROW | _JSON, max_size=3), _JSON), max_size=3))
def test_rubbish_never_raises(reports: list[tuple[bool, Any, Any]]) -> None:
    servers = [
        ServerCatalog(ServerId(str(number)), healthy, rows, rows, version)
        for number, (healthy, rows, version) in enumerate(reports)
    ]
    rows = merged_catalog.tags(servers)
    assert len({model_names.canonical(str(row["name"])) for row in rows}) == len(rows)
    for row in (*rows, *merged_catalog.ps(servers)):
        assert len(str(row["digest"])) >= 12
    merged_catalog.conflicts(servers)
    merged_catalog.v1_models(servers)
    assert merged_catalog.version(servers, "0.0.0").count(".") == 2
