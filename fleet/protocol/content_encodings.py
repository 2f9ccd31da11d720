"""Request bodies that are not plain JSON: zstd-compressed ones and multipart forms. In steps, bounded in memory."""

from __future__ import annotations

import re
from typing import Final

import zstandard

from fleet.common.errors import BadRequest, TooLarge
from fleet.common.steps import Steps

ZSTD_WINDOW: Final = 8 * 1024 * 1024
"""Bytes; what Ollama's own decoder allows."""
ZSTD_LIMIT: Final = 20 * 1024 * 1024
"""Decoded bytes; what Ollama's own decoder allows."""

_PARTS: Final = 64
_PART_HEAD: Final = 8 * 1024
_VALUE: Final = 4 * 1024
_STEP: Final = 64 * 1024
_STRETCH: Final = 64 * 1024
"""Bytes that are searched for a boundary in one step."""

_QUOTED_OR_TOKEN = r'(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))'
_BOUNDARY = re.compile(r";\s*boundary=" + _QUOTED_OR_TOKEN, re.IGNORECASE)
_FORM_NAME = re.compile(r";\s*name=" + _QUOTED_OR_TOKEN, re.IGNORECASE)
_FILE_NAME = re.compile(r";\s*filename\*?=", re.IGNORECASE)
_DISPOSITION = re.compile(r"^content-disposition\s*:\s*form-data\s*(;.*)$", re.IGNORECASE | re.MULTILINE)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


def decode_zstd(body: bytes, limit: int = ZSTD_LIMIT) -> Steps[bytearray]:
    """Decompress a whole body, several frames included. A step gives 64 KiB, after any number of empty frames.

    Raises `TooLarge` over `limit` decoded bytes, `BadRequest` for broken data or a window over 8 MiB.
    """
    decoded = bytearray()
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(body, read_across_frames=True)
        while step := reader.read(_STEP):
            decoded += step
            if len(decoded) > limit:
                raise TooLarge(f"the request body is over {limit} bytes when decompressed")
            yield
    except zstandard.ZstdError:
        raise BadRequest("the request body is not valid zstd data") from None
    return decoded


def multipart_model(content_type: str, body: bytes | bytearray) -> Steps[str | None]:
    """The form field `model` of a multipart body, in any position among the first 64 parts; None if there is none.

    A file part of that name does not count, nor does a value over 4 KiB.
    """
    boundary = _parameter(_BOUNDARY, content_type[:_PART_HEAD])
    if boundary is None or not 0 < len(boundary) <= 70:
        return None
    dash = b"--" + boundary.encode("latin-1", "replace")
    if body.startswith(dash):
        start = 0
    elif (start := (yield from _found(body, b"\n" + dash, 0)) + 1) == 0:
        return None
    for _ in range(_PARTS):
        start += len(dash)
        end = yield from _found(body, b"\n" + dash, start)
        if end < 0:
            return None
        if (value := _model_part(body, start, end)) is not None:
            return value
        start = end + 1
    return None


def _found(body: bytes | bytearray, mark: bytes, start: int) -> Steps[int]:
    """Where `mark` is next; negative if nowhere."""
    for at in range(start, len(body), _STRETCH):
        found = body.find(mark, at, at + _STRETCH + len(mark) - 1)
        if found >= 0:
            return found
        yield
    return -1


def _model_part(body: bytes | bytearray, start: int, end: int) -> str | None:
    """The value of the part between two boundaries, if it is the plain form field `model`."""
    blank = _BLANK_LINE.search(body, start, min(end, start + _PART_HEAD))
    if blank is None or end - blank.end() > _VALUE:
        return None
    disposition = _DISPOSITION.search(body[start : blank.start()].decode("utf-8", "replace").replace("\r\n", "\n"))
    if disposition is None or _FILE_NAME.search(disposition[1]) or _parameter(_FORM_NAME, disposition[1]) != "model":
        return None
    return body[blank.end() : end].removesuffix(b"\r").decode("utf-8", "replace")


def _parameter(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    if found is None:
        return None
    quoted, token = found.groups()
    return token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
