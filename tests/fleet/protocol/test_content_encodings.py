from __future__ import annotations

from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.errors import BadRequest, TooLarge
from fleet.common.steps import finished
from fleet.protocol import content_encodings

TYPE = 'multipart/form-data; boundary="b-1"'


def multipart_model(content_type: str, body: bytes) -> str | None:
    return finished(content_encodings.multipart_model(content_type, body))


def decode_zstd(body: bytes, limit: int) -> bytes:
    return bytes(finished(content_encodings.decode_zstd(body, limit)))


def form(*parts: tuple[str, bytes], newline: bytes = b"\r\n") -> bytes:
    body = b"".join(b"--b-1" + newline + head.encode() + newline + newline + value + newline for head, value in parts)
    return body + b"--b-1--" + newline


def part(name: str, value: bytes, more: str = "") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"{more}', value


AUDIO = part(
    "file", b"\x00--b-1 is not a boundary\r\n\r\nmodel" * 1000, '; filename="a.wav"\r\nContent-Type: audio/wav'
)


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_the_model_may_stand_before_or_after_the_file(newline: bytes) -> None:
    model = part("model", b"whisper:small")
    assert multipart_model(TYPE, form(model, AUDIO, newline=newline)) == "whisper:small"
    assert multipart_model(TYPE, form(AUDIO, part("language", b"en"), model, newline=newline)) == "whisper:small"


@pytest.mark.parametrize(
    "head",
    [
        "content-disposition:form-data; name=model",
        'Content-Type: text/plain\r\nContent-Disposition: FORM-DATA; Name="model"',
        'Content-Disposition: form-data; name="mo\\del"',
    ],
)
def test_other_spellings_of_the_part_header(head: str) -> None:
    assert multipart_model(TYPE, form((head, b"m"))) == "m"


def test_the_first_model_counts() -> None:
    assert multipart_model(TYPE, form(part("model", b"a"), part("model", b"b"))) == "a"


def test_a_preamble_is_tolerated_and_a_missing_end_is_not() -> None:
    body = form(part("model", b"a"))
    assert multipart_model("multipart/form-data; boundary=b-1", b"preamble\r\n" + body) == "a"
    assert multipart_model(TYPE, body.partition(b"--b-1--")[0]) is None


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", form(part("model", b"a"))),
        ("application/json", form(part("model", b"a"))),
        ("multipart/form-data", form(part("model", b"a"))),
        ("multipart/form-data; boundary=", form(part("model", b"a"))),
        ("multipart/form-data; boundary=" + "x" * 100, form(part("model", b"a"))),
        ("multipart/form-data; boundary=other", form(part("model", b"a"))),
        (TYPE, b""),
        (TYPE, form()),
        (TYPE, form(part("models", b"a"))),
        (TYPE, form(part("x", b"model"))),
        (TYPE, form(part("model", b"a", '; filename="f"'))),
        (TYPE, form(part("model", b"a" * 5000))),
        (TYPE, form(("X: " + "y" * 10_000 + '\r\nContent-Disposition: form-data; name="model"', b"a"))),
        (TYPE, form(*[part("x", b"")] * 64, part("model", b"a"))),
        (TYPE, b"--b-1" * 100_000),
        (TYPE, b"\r\n--b-1" * 100_000),
    ],
    ids=range(16),
)
def test_no_model_is_found_where_there_is_none(content_type: str, body: bytes) -> None:
    assert multipart_model(content_type, body) is None


@given(st.text(max_size=60), st.binary(max_size=200))
def test_rubbish_never_raises(content_type: str, body: bytes) -> None:
    multipart_model(content_type, body)
    multipart_model(TYPE, b"--b-1\r\n" + body)


def test_zstd_bodies_are_decoded_frame_by_frame() -> None:
    packed = zstandard.compress(b"hello ") + zstandard.compress(b"world")
    assert decode_zstd(packed, 100) == b"hello world"
    assert decode_zstd(zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000), 1000) == b"x" * 1000


def test_a_zstd_bomb_is_too_large() -> None:
    with pytest.raises(TooLarge):
        decode_zstd(zstandard.compress(b"\x00" * 50_000_000), 1_000_000)
    assert len(decode_zstd(zstandard.compress(b"\x00" * 1000), 1000)) == 1000
    with pytest.raises(TooLarge):
        decode_zstd(zstandard.compress(b"\x00" * 1001), 1000)


def test_a_zstd_window_over_8_mib_is_refused() -> None:
    def pack(window_log: int) -> bytes:
        parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        return packer.compress(b"x" * 1000) + packer.flush()

    assert decode_zstd(pack(23), 10_000) == b"x" * 1000
    with pytest.raises(BadRequest):
        decode_zstd(pack(24), 10_000)


@given(st.binary(max_size=100))
def test_broken_zstd_data_is_a_bad_request_or_short(body: bytes) -> None:
    for data in (body, zstandard.compress(b"hello")[:6] + body):
        with suppress(BadRequest, TooLarge):
            decode_zstd(data, 1000)
