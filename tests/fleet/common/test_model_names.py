from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common import model_names
from fleet.common.ids import ANY_MODEL

CANONICAL = [
    ("llama3", "llama3:latest"),
    (" Llama3\t", "llama3:latest"),
    ("llama3:8B", "llama3:8b"),
    ("library/llama3", "llama3:latest"),
    ("registry.ollama.ai/library/llama3:latest", "llama3:latest"),
    ("REGISTRY.OLLAMA.AI/Library/Llama3", "llama3:latest"),
    ("https://registry.ollama.ai/library/llama3", "llama3:latest"),
    ("me/mine", "me/mine:latest"),
    ("registry.ollama.ai/me/mine:7b", "me/mine:7b"),
    ("hf.co/bartowski/Some-Model-GGUF:Q4_K_M", "hf.co/bartowski/some-model-gguf:q4_k_m"),
    ("localhost:5000/library/foo", "localhost:5000/library/foo:latest"),
    ("qwen3:8b:local", "qwen3:8b"),
    ("qwen3:local", "qwen3:latest"),
    ("qwen3: LOCAL", "qwen3:latest"),
    ("qwen3:cloud", "qwen3:cloud"),
    ("gpt-oss:20b:cloud", "gpt-oss:20b-cloud"),
    ("gpt-oss:20b-cloud", "gpt-oss:20b-cloud"),
    ("my-cloud-model", "my-cloud-model:latest"),
    ("_x", "_x:latest"),
]

INVALID = [
    "",
    "   ",
    "a b",
    "x@sha256:0123",
    "x@sha256",
    "a:b:c",
    "foo:cloud:local",
    "foo:bar-cloud:local",
    ":latest",
    "x:",
    "/x",
    "x/",
    "a//b",
    "ns.dot/x",
    "-x",
    ".x",
    "../x",
    "a/b/c/d",
    "x:-t",
    "mod\u00e9l",
    "x\ny",
    "x\x00",
    "a" * 81,
    "x:" + "t" * 81,
    "n" * 81 + "/x",
    "h" * 351 + "/n/x",
    "x" * 100_000,
    ":" * 1000,
    "/" * 1000,
]


@pytest.mark.parametrize(("raw", "wanted"), CANONICAL)
def test_spellings_of_a_model_have_one_canonical_form(raw: str, wanted: str) -> None:
    assert model_names.canonical(raw) == wanted
    assert model_names.is_valid(raw)


@pytest.mark.parametrize("raw", INVALID)
def test_invalid_names_may_go_anywhere(raw: str) -> None:
    assert not model_names.is_valid(raw)
    assert model_names.canonical(raw) == ANY_MODEL
    assert not model_names.is_cloud(raw)
    assert model_names.display(raw) == raw
    assert model_names.namespace(raw) == ""


def test_parts_may_be_exactly_as_long_as_ollama_allows() -> None:
    longest = f"{'h' * 350}/{'n' * 80}/{'m' * 80}:{'t' * 80}"
    assert model_names.canonical(longest) == longest


@pytest.mark.parametrize(
    ("raw", "cloud"),
    [
        ("x:cloud", True),
        ("x:Cloud", True),
        ("x:20b-cloud", True),
        ("x:20b:cloud", True),
        ("localhost:11434/library/foo:cloud", True),
        ("cloud", False),
        ("my-cloud", False),
        ("x:cloudy", False),
        ("x:local", False),
    ],
)
def test_cloud_models_are_known_by_their_tag(raw: str, cloud: bool) -> None:
    assert model_names.is_cloud(raw) is cloud


@pytest.mark.parametrize(
    ("raw", "shown"),
    [("none", "none:latest"), ("NONE", "NONE:latest"), (" library/none:8b ", "none:8b"), ("me/x", "me/x:latest")],
)
def test_a_name_is_displayed_short_in_its_own_case(raw: str, shown: str) -> None:
    assert model_names.display(raw) == shown


@given(st.text(alphabet="aZ0._-:/ @\n\u00e9clouda", max_size=40) | st.text())
def test_canonical_is_idempotent(raw: str) -> None:
    once = model_names.canonical(raw)
    assert model_names.canonical(once) == once
    assert model_names.canonical(raw.swapcase() if raw.isascii() else raw) == once


@given(st.sampled_from([raw for raw, _ in CANONICAL]))
def test_canonical_and_cloud_agree(raw: str) -> None:
    assert model_names.is_cloud(model_names.canonical(raw)) == model_names.is_cloud(raw)
