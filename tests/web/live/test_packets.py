"""Engine.IO's and Socket.IO's packets: what is read, what is refused, and that nothing else can come of any input."""

from __future__ import annotations

import json
from typing import Any

import engineio.packet
import pytest
import socketio.packet
from hypothesis import given
from hypothesis import strategies as st

from web.live import engine_io
from web.live import socketio as sio
from web.live.engine_io import BadPacket, EnginePacket, Timing

READ: list[tuple[str, sio.SocketPacket]] = [
    ("0", sio.SocketPacket("0")),
    ('0{"token":"x"}', sio.SocketPacket("0", data={"token": "x"})),
    ("0/admin,", sio.SocketPacket("0", "/admin")),
    ("0/admin", sio.SocketPacket("0", "/admin")),
    ('0/admin?a=b,{"c":1}', sio.SocketPacket("0", "/admin", data={"c": 1})),
    ("1", sio.SocketPacket("1")),
    ("1/admin,", sio.SocketPacket("1", "/admin")),
    ('2["a",1]', sio.SocketPacket("2", data=["a", 1])),
    ('212["a"]', sio.SocketPacket("2", id=12, data=["a"])),
    ('2/admin,12["a"]', sio.SocketPacket("2", "/admin", 12, ["a"])),
    ("30[]", sio.SocketPacket("3", id=0, data=[])),
    (
        '51-["a",{"_placeholder":true,"num":0}]',
        sio.SocketPacket("5", "/", None, ["a", {"_placeholder": True, "num": 0}], 1),
    ),
    ('52-/x,7["a"]', sio.SocketPacket("5", "/x", 7, ["a"], 2)),
    ("61-3[null]", sio.SocketPacket("6", "/", 3, [None], 1)),
]
REFUSED = [
    "", "7", "abc", "-1", "2", "2{}", "2[]", "2[1]", "2[null]", '2"a"', "2abc", '2x["a"]', "2[", '2["a"',
    "29999999999999999[]", "0[]", '0"token"', "0{", "1{}", "1[]", "3", "3[]", "3{}", "31", "31{}", "4{}", "4", '5["a"]',
    "61[]", "511-[]", '51-{"a":1}', '599999-["a"]', '22-["a"]', "0/" + "a" * 300, "٣[]", '2٣["a"]',
]  # fmt: skip


@pytest.mark.parametrize(("text", "packet"), READ)
def test_a_packet_is_read(text: str, packet: sio.SocketPacket) -> None:
    assert sio.decoded(text) == packet


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_packet_is_refused(text: str) -> None:
    with pytest.raises(BadPacket):
        sio.decoded(text)


@pytest.mark.parametrize("text", [text for text, _ in READ])
def test_python_socketio_reads_the_same(text: str) -> None:
    theirs, ours = socketio.packet.Packet(encoded_packet=text), sio.decoded(text)
    assert (str(theirs.packet_type), theirs.namespace or "/", theirs.id) == (ours.kind, ours.namespace, ours.id)
    assert (theirs.data, theirs.attachment_count) == (ours.data, ours.attachments)


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
)


@given(st.text(max_size=9), st.lists(values, max_size=3), st.none() | st.integers(0, 10**15 - 1), st.booleans())
def test_what_python_socketio_writes_is_read(name: str, said: list[Any], number: int | None, main: bool) -> None:
    namespace = None if main else "/other"
    text = socketio.packet.Packet(socketio.packet.EVENT, [name, *said], namespace, number).encode()
    assert sio.decoded(text) == sio.SocketPacket("2", namespace or "/", number, [name, *said])


@given(st.text(max_size=9), st.lists(st.binary(max_size=9), min_size=1, max_size=sio.MOST_ATTACHMENTS))
def test_events_with_attachments_are_read(name: str, attached: list[bytes]) -> None:
    text, *rest = socketio.packet.Packet(socketio.packet.EVENT, [name, *attached]).encode()
    read = sio.decoded(text)
    assert (read.kind, read.attachments, read.data[0]) == (sio.BINARY_EVENT, len(rest), name)


def theirs(packet: bytes) -> Any:
    """What python-socketio makes of a packet of ours."""
    outer = engineio.packet.Packet(encoded_packet=packet.decode())
    assert outer.packet_type == engineio.packet.MESSAGE
    text = outer.data if isinstance(outer.data, str) else json.dumps(outer.data)
    inner = socketio.packet.Packet(encoded_packet=text)
    return inner.packet_type, inner.namespace or "/", inner.id, inner.data


def test_what_we_write_is_what_python_socketio_reads() -> None:
    event = sio.event("metrics_update", b'{"seq":1}')
    assert theirs(sio.connected("abc")) == (0, "/", None, {"sid": "abc"})
    assert theirs(sio.refused("/", "no", {"code": "X"})) == (4, "/", None, {"message": "no", "data": {"code": "X"}})
    assert theirs(sio.refused("/admin", "no")) == (4, "/admin", None, {"message": "no"})
    assert theirs(sio.acked(7, {"ok": True})) == (3, "/", 7, [{"ok": True}])
    assert theirs(event) == (2, "/", None, ["metrics_update", {"seq": 1}])
    assert theirs(sio.asking(event, 12)) == (2, "/", 12, ["metrics_update", {"seq": 1}])
    assert sio.parting() == b"41"


def test_the_opening_says_all_that_clients_need() -> None:
    opening = engine_io.opening("abc", ["websocket"], Timing(ping=25, pong=20), 65536)
    record = {"sid": "abc", "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 65536}
    assert opening[:1] == b"0"
    assert json.loads(opening[1:]) == record


def test_the_body_of_a_post_is_taken_apart() -> None:
    assert engine_io.unpacked(b'3\x1e42["a"]\x1ebAQID') == [
        EnginePacket("3"),
        EnginePacket("4", '2["a"]'),
        EnginePacket("4", b"\x01\x02\x03"),
    ]
    assert engine_io.packed([b"2", b"42[]"]) == b"2\x1e42[]"


BODIES = [
    b"",
    b"\x1e",
    b"abc",
    b"3\x1e",
    b"b***",
    b"b\xff",
    b"4\xff",
    b"9",
    b"3\x1e" * engine_io.MOST_PACKETS + b"3",
    b"bA",
]


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_is_not_made_of_packets_is_refused(body: bytes) -> None:
    with pytest.raises(BadPacket):
        engine_io.unpacked(body)


def test_as_many_packets_as_allowed_are_taken() -> None:
    assert len(engine_io.unpacked(b"\x1e".join([b"3"] * engine_io.MOST_PACKETS))) == engine_io.MOST_PACKETS


pieces = st.sampled_from(
    ["0", "1", "2", "3", "4", "5", "6", "-", "/", ",", "[", "]", '"a"', "{}", "null", "\x1e", "b", "é"]
)


@given(st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=12).map(lambda parts: "".join(parts).encode())))
def test_any_body_is_packets_or_a_refusal(body: bytes) -> None:
    try:
        packets = engine_io.unpacked(body)
    except BadPacket:
        return
    assert len(packets) == body.count(b"\x1e") + 1


@given(st.one_of(st.text(max_size=60), st.lists(pieces, max_size=12).map("".join)))
def test_any_text_is_a_packet_or_a_refusal(text: str) -> None:
    try:
        packet = sio.decoded(text)
    except BadPacket:
        return
    assert packet.kind == text[0]
    assert packet.namespace.startswith("/")
    assert 0 <= packet.attachments <= sio.MOST_ATTACHMENTS
