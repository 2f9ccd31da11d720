from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.common.steps import finished
from fleet.protocol import body_fields as peeks
from fleet.protocol.body_fields import QUICK, Peek, peek, peeking
from fleet.protocol.json import value_span
from fleet.protocol.json.go_json import LONG, MEMBERS

# --- the reference: the standard library's parser and Go's rules, slow and obvious --------------------------------

_SIMPLE = ("model", "name", "from", "source", "destination")
_RUNNER = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict")
Pairs = list[tuple[str, Any]]


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


# --- Go's rules, one by one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a"}', "a"),
        (b'{"MODEL":"a"}', "a"),
        (b'{"model":"a","Model":"b"}', "b"),
        (b'{"Model":"b","model":"a","model":"c"}', "c"),
        (b'{"model":"a","model":null}', "a"),
        (b'{"model":null}', None),
        (b'{"mod\\u0065l":"a"}', "a"),
        (b'{"model":"a"} trailing', "a"),
        (b'{"model":"a"}{"model":"b"}', "a"),
        (b'{"messages":[{"model":"evil"}],"model":"a"}', "a"),
        (b'{"model":"a","x":"\\"model\\":\\"evil\\""}', "a"),
        (b'{"model":"a\xff","x":"\xff\xfe"}', "a\ufffd"),
        (b'{"model":"a","prompt":"cut \\ud83d"}', "a"),
        (b'{"model":"a","prompt":"\\\\ud83d","x":"\\ud83d\\ude00 \\ud83d"}', "a"),
        (b'{"model":"a","zzz":[[{"a":"]}"}],[]],"prompt":"x"}', "a"),
        (b"{}", None),
        (b" { } ", None),
        (b'{"model":""}', ""),
    ],
)
def test_the_model_is_the_one_that_go_would_read(body: bytes, model: str | None) -> None:
    found = peek(body)
    assert found.readable
    assert found.model == model


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"model"',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"a"',
        b'{"model":"a",}',
        b'{"model":1}',
        b'{"model":["a"]}',
        b'{"model":"a","stream":"yes"}',
        b'{"model":"a","stream":1}',
        b'{"model":"a","x":NaN}',
        b'{"model":"a","keep_alive":1e400}',
        b'{"model":"a","options":{"num_ctx":-1e400}}',
        b'{"model":"a","x":01}',
        b'{"model":"a","x":"\n"}',
        b'{"model":"a","x":"\\x"}',
        b"{'model':'a'}",
        b'{"model":"a"}'[:-1] + b"\x00}",
        b'{"model":"' + b"a" * 5000 + b'"}',
    ],
)
def test_what_ollama_would_refuse_is_unreadable(body: bytes) -> None:
    assert peek(body) == Peek(readable=False)


@pytest.mark.parametrize(("text", "stream"), [("true", True), ("false", False), ("null", None)])
def test_stream_null_is_the_default(text: str, stream: bool | None) -> None:
    assert peek(b'{"stream":' + text.encode() + b"}").stream is stream


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"-0", 0.0),
        (b"0.0", 0.0),
        (b'"0"', 0.0),
        (b'"0s"', 0.0),
        (b'"0m0s"', 0.0),
        (b'"-0s"', 0.0),
        (b"300", 300.0),
        (b"-1", -1.0),
        (b'"5m"', 300.0),
        (b'"1h30m"', 5400.0),
        (b'"1.5s"', 1.5),
        (b'".5s"', 0.5),
        (b'"100ms"', 0.1),
        (b'"10"', None),
        (b'"-1"', None),
        (b'""', None),
        (b'"s"', None),
        (b'"5m "', None),
        (b'"5 m"', None),
        (b'"\xd9\xa5m"', None),
        (b"null", None),
        (b"{}", None),
        (b"true", None),
    ],
)
def test_keep_alive_is_seconds_or_a_go_duration(value: bytes, seconds: float | None) -> None:
    assert peek(b'{"keep_alive":' + value + b"}").keep_alive == seconds


@pytest.mark.parametrize(
    ("body", "load", "unload"),
    [
        (b'{"model":"a"}', True, False),
        (b'{"model":"a","prompt":""}', True, False),
        (b'{"model":"a","messages":[ ]}', True, False),
        (b'{"model":"a","messages":null,"keep_alive":0}', True, True),
        (b'{"model":"a","prompt":"","keep_alive":"0s"}', True, True),
        (b'{"model":"a","keep_alive":-1}', True, False),
        (b'{"model":"a","prompt":"x","keep_alive":0}', False, False),
        (b'{"model":"a","messages":[{}],"keep_alive":0}', False, False),
    ],
)
def test_empty_requests_load_or_unload(body: bytes, load: bool, unload: bool) -> None:
    found = peek(body)
    assert (found.is_load, found.is_unload) == (load, unload)


def test_only_options_that_reload_a_runner_are_kept() -> None:
    body = b'{"options":{"num_ctx":4096.0,"temperature":1,"use_mmap":false,"num_gpu":"x","NUM_BATCH":3},"shift":false}'
    assert peek(body).runner_options() == {"num_ctx": 4096, "use_mmap": False, "shift": False}


def test_create_requests_tell_where_they_must_go() -> None:
    found = peek(b'{"name":"n","from":"base","files":{"a":"sha256:0"},"adapters":{}}')
    assert (found.asked, found.from_, found.has_files, found.has_adapters) == ("n", "base", True, False)


# --- hostile sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"messages", b"zzz"])
def test_deep_nesting_is_unreadable_and_harmless(key: bytes) -> None:
    deep = b"[" * 200_000
    assert not peek(b'{"model":"a","' + key + b'":' + deep).readable
    assert not peek(b'{"model":"a","' + key + b'":' + deep + b"]" * 200_000 + b"}").readable
    assert not peek(deep).readable


def test_a_caller_deep_in_recursion_gets_an_answer_all_the_same() -> None:
    def dig(left: int) -> Peek:
        return dig(left - 1) if left else peek(b'{"model":"a","x":' + b"[" * 500 + b"]" * 500 + b"}")

    assert isinstance(dig(sys.getrecursionlimit() // 2), Peek)


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b'"":0,' * 1_000_000 + b'"model":"a"}',
        b'{"zzz":[' + b"{}," * 1_000_000 + b'{}],"model":"a"}',
        b'{"model":"a"}' + b'"' * 4_000_000,
        b'{"zzz":"' + b'\\"' * 2_000_000 + b'","model":"a"}',
        b'{"zzz":"' + b"\\\\" * 2_000_000 + b'\\ud800","model":"a"}',
        b'{"model":"' + b"\\u0061" * 700_000 + b'"}',
        b'{"' + b"\\u0061" * 700_000 + b'":1}',
        b'{"keep_alive":' + b"1" * 4_000_000 + b"}",
        b'{"options":{"num_ctx":' + b"1" * 4_000_000 + b"}}",
        b'{"options":{"num_ctx":[' + b"[]," * 1_000_000 + b"[]]}}",
        b" " * 4_000_000 + b"{}",
        b'{"zzz":"' + b"\\ud83d" * 700_000 + b'","model":"a"}',
        b'{"zzz":"' + b"\\ud83d\\ude00" * 350_000 + b'" "model":"a"}',
        b"\\ud83d" + b"\\" * 4_000_000,
    ],
    ids=range(14),
)
def test_size_bombs_are_cheap(body: bytes) -> None:
    peek(body)  # the suite's time limit is the assertion


def test_big_prompts_and_images_are_read_past() -> None:
    text = json.dumps('say "hello"\n' * 300_000).encode()
    for body in (
        b'{"model":"a","prompt":' + text + b',"stream":false}',
        b'{"model":"a","messages":[{"content":' + text + b',"images":["' + b"QUJD" * 900_000 + b'"]}],"stream":false}',
        b'{"messages":[' + b'{"role":"user"},' * 100_000 + b'{}],"model":"a","stream":false}',
        b'{"model":"a","unheard_of":' + text + b',"stream":false}',
    ):
        assert (peek(body).model, peek(body).stream) == ("a", False)


def test_too_many_members_are_unreadable() -> None:
    members = b",".join(b'"k%d":0' % number for number in range(MEMBERS - 1))
    assert peek(b'{"model":"a",' + members + b"}").model == "a"
    assert not peek(b'{"model":"a","one more":1,' + members + b"}").readable


# --- long bodies ----------------------------------------------------------------------------------------------------

_FILLINGS = {
    "text": b'"' + b"x" * 70_000 + b'"',
    "code": b'"' + b'\\"\\\\\\n' * 12_000 + b'"',
    "messages": b"[" + b'{"role":"user","content":"say \\"]}\\" twice"},' * 15_000 + b"{}]",
    "deep": b"[" + (b"[" * 30 + b"]" * 30 + b",") * 2_000 + b"[]]",
    "halves": b'"' + b"\\ud83d" * 20_000 + b'"',
}


@pytest.mark.parametrize("size", ["some", "much"])
@pytest.mark.parametrize("filling", list(_FILLINGS))
@pytest.mark.parametrize("key", [b"messages", b"prompt", b"unheard_of", b"files"])
def test_what_stands_before_and_behind_a_long_value_is_read(key: bytes, filling: str, size: str) -> None:
    value = _FILLINGS[filling] if size == "some" else b"[" + b",".join([_FILLINGS[filling]] * 8) + b"]"
    body = b'{"Model":"a","model":"b","%b":%b,"model":"c","stream":false} {' % (key, value)
    found = peek(body)
    assert (found.readable, found.model, found.stream) == (True, "c", False)
    assert found.messages_empty == (key != b"messages")
    assert found.prompt_empty == (key != b"prompt")
    assert not found.has_files  # an array or a text is none


@pytest.mark.parametrize("size", [LONG - 20, LONG + 20, QUICK + 20])
def test_emptiness_is_seen_through_any_amount_of_white_space(size: int) -> None:
    for empty in (b"[%b]" % (b" " * size), b" " * size + b"[ ]", b"[ ]" + b"\n" * size):
        assert peek(b'{"model":"a","messages":' + empty + b"}").is_load
    assert not peek(b'{"model":"a","messages":[%b{}]}' % (b" " * size)).is_load
    assert peek(b'{"from":"a","files":{%b"a":"b"}}' % (b" " * size)).has_files
    assert not peek(b'{"from":"a","files":{%b}}' % (b" " * size)).has_files


@pytest.mark.parametrize("size", [LONG, QUICK])
@pytest.mark.parametrize(
    "end",
    [b"", b'"', b'"}]', b'"]', b'"]},', b'"]}x"model":"c"}', b'"]} "model":"c"}', b'"]},"model":7}', b'"]},model}'],
)
def test_a_long_body_that_is_cut_or_wrong_is_unreadable(size: int, end: bytes) -> None:
    assert peek(b'{"model":"a","messages":[{"content":"' + b'\\"' * size + end) == Peek(readable=False)


def test_options_beyond_any_measure_are_unreadable() -> None:
    options = b'{"stop":["%b"],"num_ctx":8}'
    assert peek(b'{"model":"a","options":%b}' % (options % (b"x" * 20_000))).options == {"num_ctx": 8}
    assert not peek(b'{"model":"a","options":%b}' % (options % (b"x" * 2 * QUICK))).readable


def test_no_step_is_longer_for_a_longer_body() -> None:
    """Two bodies of which one is ten times as long: ten times the steps."""

    def steps(size: int) -> int:
        return sum(1 for _ in peeking(b'{"model":"a","messages":[{"images":["' + b"QUJD" * size + b'"]}]}'))

    assert steps(10 * 2**18) == pytest.approx(10 * steps(2**18), rel=0.05)
