"""Frames that are none: a close code says what was wrong with them, on every websocket there is."""

from __future__ import annotations

import struct

import pytest
import trio

from tests.kit.fleets.live import dashboard
from tests.web.edge.test_websocket_tunnel import frame, opened, upgrade

MASK = b"\0\0\0\0"


def raw(first: int, payload: bytes = b"", *, masked: bool = True) -> bytes:
    """One frame, whatever is wrong with it."""
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        length = bytes([flag | len(payload)])
    else:
        length = bytes([flag | 126]) + struct.pack("!H", len(payload))
    return bytes([first]) + length + (MASK if masked else b"") + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    return raw(0x88, struct.pack("!H", code) + reason)


MALFORMED = {
    "a reserved bit": (raw(0xC1, b"x"), 1002),
    "another reserved bit": (raw(0xA1, b"x"), 1002),
    "a third reserved bit": (raw(0x91, b"x"), 1002),
    "a reserved bit of a ping": (raw(0xC9), 1002),
    "not masked": (raw(0x81, b"hello", masked=False), 1002),
    "a ping that is not masked": (raw(0x89, masked=False), 1002),
    "an unknown opcode": (raw(0x83, b"x"), 1002),
    "an unknown control opcode": (raw(0x8B), 1002),
    "a fragmented ping": (raw(0x09, b"x"), 1002),
    "a fragmented close": (raw(0x08), 1002),
    "a long ping": (raw(0x89, b"x" * 126), 1002),
    "a long close": (raw(0x88, struct.pack("!H", 1000) + b"x" * 124), 1002),
    "a continuation of nothing": (raw(0x80, b"x"), 1002),
    "a text within a text": (raw(0x01, b"x") + raw(0x81, b"y"), 1002),
    "text that is no UTF-8": (raw(0x81, b"\xff\xfe"), 1007),
    "text that is cut within a letter": (raw(0x81, b"\xc3"), 1007),
    "UTF-8 cut over two frames": (raw(0x01, b"\xc3") + raw(0x80, b"\x28"), 1007),
    "a surrogate": (raw(0x81, b"\xed\xa0\x80"), 1007),
    "a close of one byte": (raw(0x88, b"\x03"), 1002),
    "close 0": (closing(0), 1002),
    "close 999": (closing(999), 1002),
    "close 1004": (closing(1004), 1002),
    "close 1005": (closing(1005), 1002),
    "close 1006": (closing(1006), 1002),
    "close 1015": (closing(1015), 1002),
    "close 1016": (closing(1016), 1002),
    "close 2999": (closing(2999), 1002),
    "close 5000": (closing(5000), 1002),
    "close 65535": (closing(65535), 1002),
    "a close whose reason is no UTF-8": (closing(1000, b"\xff"), 1007),
    "a length with its highest bit set": (b"\x81\xff" + b"\xff" * 8 + MASK, 1002),
    "a length that is not the shortest": (b"\x81\xfe\x00\x05" + MASK + b"hello", 1002),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 1002),
    "a good close": (closing(1000), 1000),
    "a good close of an application": (closing(4001, b"bye"), 4001),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_frame_is_answered_with_its_code(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, code = MALFORMED[what]
    async with opened(monkeypatch) as room:
        client = await room.raw()
        await client.send(upgrade("/test/echo"))
        assert (await client.answer()).status == 101
        await client.send(frame(b"hello"))
        echo = b""
        with trio.fail_after(20):
            while len(echo) < 7:
                echo += await client.stream.receive_some(65536)
        await client.send(sent)
        said = await client.rest(5.0)
        assert (echo, said[:1], said[2:4]) == (b"\x81\x05hello", b"\x88", struct.pack("!H", code)), said
        await client.stream.aclose()
        await room.until_empty()


@pytest.mark.parametrize("path", ["/ws", "/socket.io/?EIO=4&transport=websocket"])
async def test_the_live_feeds_answer_alike(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as live:
        for sent, code in (MALFORMED["not masked"], MALFORMED["a surrogate"]):
            host, port = live.url.rpartition("/")[2].split(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(upgrade(path))
                with trio.fail_after(20):
                    said = b""
                    while b"\r\n\r\n" not in said:
                        said += await stream.receive_some(65536)
                    assert b" 101 " in said
                    await stream.send_all(sent)
                    while part := await stream.receive_some(65536):
                        said += part
                assert said.endswith(b"\x88\x11" + struct.pack("!H", code) + b"malformed frame"), said
