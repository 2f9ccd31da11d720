"""Any body at all, read as a slow reference reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.common.steps import finished
from fleet.protocol import body_fields as peeks
from fleet.protocol.body_fields import Peek, peek, peeking
from fleet.protocol.json import value_span

# --- the reference: the standard library's parser and Go's rules, slow and obvious --------------------------------

_SIMPLE = ("model", "name", "from", "source", "destination")
_RUNNER = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict")


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, so that duplicates survive."""


def _parse(body: bytes) -> _Object | None:
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        value, _ = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=refuse).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, _Object) else None


def _folded(key: str) -> str:
    key = key.replace("\u017f", "s").replace("\u212a", "k")
    return key.lower() if key.isascii() else ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def reference(body: bytes) -> Peek:
    pairs = _parse(body)
    found = Peek()
    if pairs is None:
        return Peek(readable=False)
    for key, value in pairs:
        key = _folded(key)
        if key in _SIMPLE and value is not None:
            if not isinstance(value, str):
                return Peek(readable=False)
            text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            setattr(found, "from_" if key == "from" else key, text)
        elif key == "stream":
            if not isinstance(value, bool | None):
                return Peek(readable=False)
            found.stream = value
        elif key == "shift":
            found.shift = value if isinstance(value, bool) else None
        elif key == "keep_alive":
            found.keep_alive = float(value) if _number(value) else {"5m": 300.0, "0": 0.0, "-1s": -1.0}.get(str(value))
        elif key == "options":
            _merge_options(found, value)
        elif key == "prompt" and value is not None:
            found.prompt_empty = value == ""
        elif key == "messages":
            found.messages_empty = value is None or (value == [] and not isinstance(value, _Object))
        elif key in ("files", "adapters"):
            _note_files(found, key, value)
    return found


def _merge_options(found: Peek, value: Any) -> None:
    if value is None:
        found.options = {}
    if not isinstance(value, _Object):
        return
    for key, option in dict(value).items():
        if key in (*_RUNNER, "use_mmap"):
            found.options.pop(key, None)
        if (key in _RUNNER and _number(option)) or (key == "use_mmap" and isinstance(option, bool)):
            found.options[key] = option if isinstance(option, bool) else int(option)


def _note_files(found: Peek, key: str, value: Any) -> None:
    before: bool = getattr(found, "has_" + key)
    has = (before or bool(value)) if isinstance(value, _Object) else before and value is not None
    setattr(found, "has_" + key, has)


# --- arbitrary bodies -----------------------------------------------------------------------------------------------

_KNOWN = [*_SIMPLE, "stream", "shift", "keep_alive", "options", "prompt", "messages", "files", "adapters"]


@st.composite
def _keys(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from([*_KNOWN, "input", "tools", "images", "format", "unknown", "mode", "models"]))
    style = draw(st.sampled_from(["exact"] * 4 + ["upper", "mixed", "kelvin", "long s", "sharp s"]))
    match style:
        case "upper":
            return key.upper()
        case "mixed":
            return "".join(draw(st.sampled_from([char, char.upper()])) for char in key)
        case "kelvin":
            return key.replace("k", "\u212a")
        case "long s":
            return key.replace("s", "\u017f", 1)
        case "sharp s":
            return key.replace("ss", "\u00df")
    return key


def _plain(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.lists(st.tuples(st.text(max_size=4), children), max_size=3).map(_Object)
    return st.lists(children, max_size=3) | pairs


_TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", "a", 'x"y\\', "{", "]", '"model":"evil"', "\u2028", "\ud83d", "5m", "0"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 2**40) | st.sampled_from([0, 0.0, -0.0, 1.5, 1e300]) | _TEXTS,
    _plain,
    max_leaves=8,
)
_OPTIONS = st.lists(
    st.tuples(
        st.sampled_from([*_RUNNER, "use_mmap", "NUM_CTX", "temperature"]),
        st.none() | st.booleans() | st.integers(0, 9999) | st.just(2.5) | st.text(max_size=3),
    ),
    max_size=4,
).map(_Object)
_MEMBERS = st.lists(st.tuples(_keys(), _VALUES | _OPTIONS | st.sampled_from(["5m", "0", "-1s", 0])), max_size=7)


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    """A JSON object written by hand, with duplicates, odd spacing, escapes and what else clients come up with."""
    escape = draw(st.booleans())
    text = _write(draw, _Object(draw(_MEMBERS)), escape)
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        body += draw(st.sampled_from([b"", b"\n", b" x", b"}", b'{"model":"other"}', b"\x00", b'"']))
    return draw(st.sampled_from([b"", b" ", b"\r\n\t"])) + body


def _write(draw: st.DrawFn, value: Any, escape: bool) -> str:
    space = draw(st.sampled_from(["", "", " ", "\n\t"]))
    if isinstance(value, _Object):
        members = (f"{_key(draw, key)}{space}:{space}{_write(draw, inner, escape)}" for key, inner in value)
        return "{" + space + f"{space},{space}".join(members) + space + "}"
    if isinstance(value, list):
        return "[" + space + f",{space}".join(_write(draw, inner, escape) for inner in value) + space + "]"
    return json.dumps(value, ensure_ascii=escape or _has_surrogate(value))


def _key(draw: st.DrawFn, key: str) -> str:
    if key and draw(st.integers(0, 9)) == 0 and not _has_surrogate(key):
        return f'"\\u{ord(key[0]):04x}{json.dumps(key[1:])[1:]}' if ord(key[0]) < 65536 else json.dumps(key)
    return json.dumps(key, ensure_ascii=_has_surrogate(key))


def _has_surrogate(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value)


@settings(max_examples=300, deadline=None)
@given(_bodies())
def test_peek_reads_what_the_slow_reference_reads(body: bytes) -> None:
    assert peek(body) == reference(body)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_bodies(), st.integers(2, 9))
def test_a_long_body_reads_the_same_in_steps(monkeypatch: pytest.MonkeyPatch, body: bytes, window: int) -> None:
    """Every body is a long one here, and every step a few bytes."""
    monkeypatch.setattr(peeks, "QUICK", -1)
    monkeypatch.setattr(value_span, "WINDOW", window)
    monkeypatch.setattr(value_span, "NEAR", window - 1)
    wanted = reference(body)
    if wanted.readable:
        assert finished(peeking(body)) == wanted


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64) | st.text('{}[]":,\\\\ a1', max_size=40).map(str.encode))
def test_rubbish_in_steps_never_raises(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setattr(peeks, "QUICK", -1)
    monkeypatch.setattr(value_span, "WINDOW", 4)
    monkeypatch.setattr(value_span, "NEAR", 2)
    finished(peeking(b"{" + body))


@settings(max_examples=150, deadline=None)
@given(_bodies(), st.data())
def test_broken_bodies_never_raise(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body)))
    broken = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 2)) :]
    assert peek(broken).readable == reference(broken).readable


@given(st.binary(max_size=64))
def test_rubbish_never_raises(body: bytes) -> None:
    peek(body)
