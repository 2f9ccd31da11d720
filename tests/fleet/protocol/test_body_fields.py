"""None"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from fleet.protocol.body_fields import QUICK, Peek, peek, peeking
from fleet.protocol.json.go_json import LONG, MEMBERS

Pairs = list[tuple[str, Any]]


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
