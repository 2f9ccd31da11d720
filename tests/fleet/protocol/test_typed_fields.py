"""What official clients read of merged lists, whatever a server puts into them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama import ListResponse, ProcessResponse, ShowResponse
from openai.types import Model

from fleet.common.ids import ServerId
from fleet.models import merged_catalog
from fleet.models.merged_catalog import ServerCatalog
from fleet.protocol import typed_fields

GOOD: dict[str, Any] = {
    "name": "good:latest",
    "model": "good:latest",
    "modified_at": "2026-01-01T00:00:00.123456789+02:00",
    "size": 4_700_000_000,
    "digest": "1" * 64,
    "details": {"parent_model": "", "format": "gguf", "family": "llama", "families": None, "parameter_size": "8B"},
}
ODD: tuple[Any, ...] = (
    None, True, "", "x", "5", "-5", "4.7GB", -1, 0, 1.5, 2.0, 2**63, 1e300, [], {}, [None], [[]], {"a": {}}, ["a", 5],
    "2026-01-01", "2026-01-01 00:00:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
)  # fmt: skip
TYPED = (
    "model", "name", "size", "size_vram", "digest", "details", "modified_at", "expires_at", "context_length",
    "capabilities", "remote_model", "remote_host", "Size", "DETAILS",
)  # fmt: skip
IN_DETAILS = ("parent_model", "format", "family", "families", "parameter_size", "quantization_level", "context_length")
SHOWN = (
    "modified_at", "template", "modelfile", "license", "details", "model_info", "parameters", "capabilities", "system",
    "projector_info", "messages", "tensors", "renderer",
)  # fmt: skip


def server(*rows: object) -> list[ServerCatalog]:
    return [
        ServerCatalog(ServerId("a"), True, rows, rows),  # type: ignore[arg-type]
        ServerCatalog(ServerId("b"), True, [GOOD], [GOOD]),
    ]


def go_reads(value: Any, kind: str) -> bool:
    """Whether Go's decoder takes it: null for everything, else the very type."""
    whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return value is None or {"text": isinstance(value, str), "int": whole, "texts": _texts(value)}[kind]


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def check_row(row: dict[str, Any]) -> None:
    for key, value in row.items():
        kind = {"size": "int", "size_vram": "int", "context_length": "int", "capabilities": "texts"}.get(key.lower())
        if key.lower() in ("name", "model", "digest", "modified_at", "expires_at", "remote_model", "remote_host"):
            kind = "text"
        assert kind is None or go_reads(value, kind), (key, value)
        if key.lower() == "details":
            assert isinstance(value, dict)
            assert all(go_reads(value.get(k), "text") for k in IN_DETAILS[:3])
            assert go_reads(value.get("families"), "texts")


def everybody_reads(servers: list[ServerCatalog]) -> None:
    """The answers as their routes would write them, read by the official clients."""
    tags = json.loads(orjson.dumps({"models": merged_catalog.tags(servers)}))
    ps = json.loads(orjson.dumps({"models": merged_catalog.ps(servers)}))
    assert "good:latest" in [model.model for model in ListResponse(**tags).models]
    assert "good:latest" in [model.model for model in ProcessResponse(**ps).models]
    for row in tags["models"] + ps["models"]:
        check_row(row)
    for row in json.loads(orjson.dumps(merged_catalog.v1_models(servers)))["data"]:
        Model.model_validate(row, strict=True)
        assert row["created"] >= 0


def test_what_llama_server_lists_breaks_nobodys_list() -> None:
    row = {
        "name": "q.gguf", "model": "q.gguf", "modified_at": "", "size": "", "digest": "", "type": "model",
        "description": "", "tags": [""], "capabilities": ["completion"], "parameters": "",
        "details": {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": ""},
    }  # fmt: skip
    everybody_reads(server(row))
    listed = next(each for each in merged_catalog.tags(server(row)) if each["name"] == "q.gguf")
    assert "size" not in listed
    assert listed["description"] == ""


@pytest.mark.parametrize("key", TYPED)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_no_value_of_any_field_breaks_a_list(key: str, value: Any) -> None:
    everybody_reads(server({"name": "x", key: value}, {"model": "y", key: value}))


@pytest.mark.parametrize("key", IN_DETAILS)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_no_value_within_the_details_breaks_a_list(key: str, value: Any) -> None:
    everybody_reads(server({"name": "x", "details": {key: value}}))


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("size", "123", 123),
        ("size", 123.0, 123),
        ("size", 0, 0),
        ("modified_at", "2026-01-01 10:00:00", "2026-01-01T10:00:00Z"),
        ("modified_at", "2026-01-01T10:00:00.1234567891z", "2026-01-01T10:00:00.123456Z"),
        ("modified_at", "2026-01-01T10:00+0200", "2026-01-01T10:00:00+02:00"),
        ("modified_at", "2026-01-01", "2026-01-01T00:00:00Z"),
        ("modified_at", 1_767_225_600, "2026-01-01T00:00:00Z"),
        ("modified_at", 1_767_225_600_000, "2026-01-01T00:00:00Z"),
        ("modified_at", "2026-01-01T10:00:00.123456789+02:00", "2026-01-01T10:00:00.123456789+02:00"),
        ("modified_at", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("modified_at", None, "0001-01-01T00:00:00Z"),
        ("details", "", {}),
        ("details", None, {}),
        ("details", {"family": 5, "families": ["a", 5], "more": [5]}, {"families": ["a"], "more": [5]}),
        ("details", {"families": None}, {"families": None}),
        ("capabilities", ["a", None], ["a"]),
    ],
)
def test_what_can_be_read_otherwise_is_put_right(field: str, value: Any, wanted: Any) -> None:
    (row,) = merged_catalog.tags([ServerCatalog(ServerId("a"), True, [{"name": "x", field: value}])])
    assert row[field] == wanted


@pytest.mark.parametrize("key", ["extra", "details"])
def test_what_is_nested_too_deeply_to_be_written_costs_only_itself(key: str) -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    row = {"name": "x", "size": 5, key: {"family": "llama", "deep": deep}}
    everybody_reads(server(row))
    assert next(each for each in merged_catalog.tags(server(row)) if each["name"] == "x")["size"] == 5


@pytest.mark.parametrize("name", [5, "", "a b", None, [], {}])
def test_a_row_goes_by_whichever_of_its_names_can_be_one(name: Any) -> None:
    (row,) = merged_catalog.tags([ServerCatalog(ServerId("a"), True, [{"name": name, "model": "x"}])])
    assert (row["name"], row["model"]) == ("x", "x")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(IN_DETAILS), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(TYPED), _JSON), max_size=3))
def test_nothing_that_json_can_say_breaks_a_list(rows: list[dict[str, Any]]) -> None:
    everybody_reads(server(*({"name": f"m{number}", **row} for number, row in enumerate(rows))))


def described(given: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(orjson.dumps(typed_fields.description(given)))
    ShowResponse(**shown)
    return shown


@pytest.mark.parametrize("key", SHOWN)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_no_value_of_any_field_breaks_a_description(key: str, value: Any) -> None:
    described({key: value})


@given(st.dictionaries(st.sampled_from(SHOWN), _JSON))
def test_nothing_that_json_can_say_breaks_a_description(given: dict[str, Any]) -> None:
    described(given)


def test_a_good_description_stays_as_it_is() -> None:
    good = {
        "license": "MIT", "modelfile": "FROM x", "template": "{{ .Prompt }}", "details": GOOD["details"],
        "model_info": {"general.architecture": "llama", "tokenizer.ggml.tokens": None}, "capabilities": ["completion"],
        "modified_at": GOOD["modified_at"], "messages": [{"role": "user", "content": "hi"}], "new": {"a": [None]},
        "tensors": [{"name": "t", "type": "F16", "shape": [1, 2]}],
    }  # fmt: skip
    assert described(good) == good
