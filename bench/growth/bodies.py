"""Request bodies: JSON as Go reads it."""

from __future__ import annotations

from typing import Final

from bench.growth.measure import Case
from fleet.protocol.body_fields import peek

_MIB: Final = 2**20


def _open_string(size: int) -> bytes:
    return b'{"x":"' + b'\\"' * (size // 2)


def _open_string_in_arrays(size: int) -> bytes:
    return b'{"x":' + b"[" * 400 + b'"' + b'\\"' * (size // 2)


def _open_model(size: int) -> bytes:
    return b'{"model":"a","messages":[{"role":"user","content":"' + b'say \\"hi\\"\\n' * (size // 11)


def _one_key_again_and_again(size: int) -> bytes:
    return b"{" + b'"messages":["x"],' * 900 + b'"messages":["' + b"x" * size + b'"]}'


def _lone_surrogates(size: int) -> bytes:
    return b'{"x":"' + b"\\ud83d" * (size // 6) + b'"}'


def _string_then_rubbish(size: int) -> bytes:
    return b'{"x":"' + b'\\"' * (size // 2) + b'"} "'


def _many_strings(size: int) -> bytes:
    return b'{"model":"a","x":[' + b'"\\"",' * (size // 5) + b'""]}'


def _nested(size: int) -> bytes:
    return b'{"model":"a","x":[' + (b"[" * 20 + b"]" * 20 + b",") * (size // 41) + b"0]}"


CASES: Final = (
    Case('peek, a string of \\" without an end', 16 * 1024, _open_string, peek),
    Case('peek, a large string of \\" without an end', 2 * _MIB, _open_string, peek),
    Case("peek, a string without an end, deep inside", 64 * 1024, _open_string_in_arrays, peek),
    Case("peek, a chat cut in the middle of code", 2 * _MIB, _open_model, peek),
    Case("peek, one key 900 times, the last one large", 200 * 1024, _one_key_again_and_again, peek),
    Case("peek, halves of surrogate pairs", _MIB, _lone_surrogates, peek),
    Case("peek, brackets within brackets", _MIB, _nested, peek),
    Case("peek, something behind the first value", 2 * _MIB, _string_then_rubbish, peek),
    Case("peek, strings by the thousand", 2 * _MIB, _many_strings, peek),
)
