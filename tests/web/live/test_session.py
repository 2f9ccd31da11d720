"""One client of Socket.IO on a virtual clock: what it is sent, what it may say, and when it has to go."""

from __future__ import annotations

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.kit.fleets.live import THREE, connected, end_of, feed_of, house, metrics, opened, say, told
from web.live import engine_io
from web.live.engine_io import BadPacket, EnginePacket
from web.live.session import MOST_WAITING, End, Over


async def test_a_client_is_welcomed_and_then_told_what_the_feed_says() -> None:
    sessions = house()
    session = await connected(sessions)
    feed_of(sessions).tell(*THREE)
    heard = [json.loads((await told(session))[0][2:]) for _ in THREE]
    assert heard == [[each.event, json.loads(each.data)] for each in THREE]


async def test_an_update_is_put_into_words_once_for_all() -> None:
    sessions = house()
    clients = [await connected(sessions) for _ in range(3)]
    update = metrics(1)
    feed_of(sessions).tell(update)
    packets = [(await client.take())[0] for client in clients]
    assert packets[0] is packets[1] is packets[2] is update.wire["socket.io"]


async def test_who_waits_is_woken_by_what_comes(autojump_clock: MockClock) -> None:
    sessions = house()
    session = await connected(sessions)
    heard: list[str] = []
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            for _ in range(3):
                heard.extend(await told(session))

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        say(session, '25["subscribe",{"topics":["system_alert","nonsense"]}]')
        await wait_all_tasks_blocked()
        feed_of(sessions).tell(metrics(1))
    assert heard == [
        '435[{"ok":true,"topics":["system_alert"]}]',
        '42["metrics_update",{"seq":1}]',
        "2",
    ]
    assert trio.current_time() == pytest.approx(25.0)


async def test_pings_come_on_time_and_a_client_that_answers_stays(autojump_clock: MockClock) -> None:
    session = await connected(house())
    for number in range(1, 6):
        began = trio.current_time()
        assert await told(session) == ["2"]
        assert trio.current_time() - began == pytest.approx(25.0), number
        session.hear(EnginePacket(engine_io.PONG))


async def test_a_client_that_does_not_answer_a_ping_is_gone(autojump_clock: MockClock) -> None:
    sessions = house()
    session = await connected(sessions)
    assert await told(session) == ["2"]
    with pytest.raises(Over):
        await session.take()
    assert trio.current_time() == pytest.approx(45.0)
    assert session.end is End.SILENT
    assert not feed_of(sessions).viewers
    assert len(sessions) == 0


async def test_pongs_that_nobody_asked_for_do_not_count(autojump_clock: MockClock) -> None:
    """A flood of them, heard one by one, kept a client that had long gone."""
    session = await connected(house())
    for _ in range(4):
        session.hear(EnginePacket(engine_io.PONG))
        with trio.move_on_after(6):
            await session.take()
    session.hear(EnginePacket(engine_io.PONG))
    assert await told(session) == ["2"]
    assert trio.current_time() == pytest.approx(25.0)


async def test_a_client_that_never_polls_is_gone_too(autojump_clock: MockClock) -> None:
    sessions, stop = house(), trio.Event()
    session = await connected(sessions)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.run, stop)
        await trio.sleep(44)
        assert end_of(session) is None
        await trio.sleep(3)
        assert end_of(session) is End.SILENT
        stop.set()
    assert not feed_of(sessions).viewers


async def test_a_client_that_never_connects_is_gone_after_ten_seconds(autojump_clock: MockClock) -> None:
    session = opened(house())
    with pytest.raises(Over):
        await session.take()
    assert trio.current_time() == pytest.approx(10.0)


async def test_at_the_end_everybody_is_sent_away_and_nobody_let_in(autojump_clock: MockClock) -> None:
    sessions, stop = house(), trio.Event()
    session = await connected(sessions)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.run, stop)
        stop.set()
    assert session.end is End.RESTART
    with pytest.raises(Over):
        await session.take()
    with pytest.raises(Exception, match="shutting down"):
        opened(sessions)


BAD = [
    ("an event before it has connected", [], '2["request_update"]'),
    ("an ack before it has connected", [], "31[]"),
    ("a goodbye before it has connected", [], "1"),
    ("two welcomes", ["0"], "0"),
    ("an event to another namespace", ["0"], '2/admin,["request_update"]'),
    ("no packet at all", ["0"], "abc"),
    ("a text among attachments", ["0", '51-["a",{"_placeholder":true,"num":0}]'], '2["request_update"]'),
    ("too many attachments", ["0"], '511-["a"]'),
]


@pytest.mark.parametrize(("before", "bad"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
async def test_what_breaks_the_protocol_is_refused(before: list[str], bad: str) -> None:
    session = opened(house())
    say(session, *before)
    with pytest.raises(BadPacket):
        say(session, bad)


@pytest.mark.parametrize("kind", [engine_io.OPEN, engine_io.PING])
async def test_what_only_servers_say_is_refused(kind: str) -> None:
    with pytest.raises(BadPacket):
        opened(house()).hear(EnginePacket(kind))


async def test_an_attachment_to_nothing_is_refused() -> None:
    session = await connected(house())
    with pytest.raises(BadPacket):
        session.hear(EnginePacket("4", b"x"))


async def test_an_event_counts_once_its_attachments_are_there() -> None:
    sessions = house()
    session = await connected(sessions)
    say(session, '52-9["request_update",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    session.hear(EnginePacket("4", b"one"))
    assert feed_of(sessions).only.wishes == 0
    session.hear(EnginePacket("4", b"two"))
    assert feed_of(sessions).only.wishes == 1
    assert await told(session) == ['439[{"ok":true}]']


async def test_other_namespaces_do_not_exist() -> None:
    session = opened(house())
    say(session, "0/admin,")
    assert await told(session) == ['44/admin,{"message":"Invalid namespace"}']
    say(session, "0")
    assert (await told(session))[0].startswith("40")


EVENTS: list[tuple[str, dict[str, object]]] = [
    ('["request_update"]', {"ok": True}),
    ('["request_update",{"any":"thing"},2,null]', {"ok": True}),
    ('["set_rate",{"hz":0.5}]', {"ok": True, "hz": 0.5}),
    ('["set_rate",1]', {"ok": True, "hz": 1.0}),
    ('["set_rate",{"hz":1000}]', {"ok": True, "hz": 2.0}),
    ('["set_rate",{"hz":-1}]', {"ok": True, "hz": 0.1}),
    ('["set_rate",{"hz":"1"}]', {"ok": False, "error": "hz must be a number of updates per second"}),
    ('["set_rate",{"hz":true}]', {"ok": False, "error": "hz must be a number of updates per second"}),
    ('["set_rate"]', {"ok": False, "error": "hz must be a number of updates per second"}),
    ('["subscribe",{"topics":["metrics_update","x",1,null,{}]}]', {"ok": True, "topics": ["metrics_update"]}),
    ('["subscribe","system_alert"]', {"ok": True, "topics": ["system_alert"]}),
    ('["subscribe"]', {"ok": True, "topics": []}),
]


@pytest.mark.parametrize(("event", "answer"), EVENTS)
async def test_what_a_client_asks_for_is_done_and_answered(event: str, answer: dict[str, object]) -> None:
    sessions = house()
    session = await connected(sessions)
    say(session, f"23{event}")
    (packet,) = await told(session)
    assert (packet[:3], json.loads(packet[3:])) == ("433", [answer])
    assert feed_of(sessions).only.rate == (answer.get("hz") if "hz" in answer else None)


@pytest.mark.parametrize("event", ['29["nonsense"]', '29["connect"]', '2["subscribe"]'])
async def test_what_nobody_knows_or_wants_answered_gets_no_answer(event: str) -> None:
    session = await connected(house())
    say(session, event)
    assert not session.leftover()


async def test_who_leaves_the_namespace_may_come_back(autojump_clock: MockClock) -> None:
    sessions = house()
    session = await connected(sessions)
    say(session, "1")
    assert not feed_of(sessions).viewers
    say(session, "0")
    assert len(feed_of(sessions).viewers) == 1
    say(session, "1")
    session.leftover()
    with pytest.raises(Over):
        await session.take()
    assert trio.current_time() == pytest.approx(10.0)


@pytest.mark.parametrize("farewell", [EnginePacket("1"), EnginePacket("4", '2["disconnect"]')])
async def test_who_says_goodbye_is_gone(farewell: EnginePacket) -> None:
    sessions = house()
    session = await connected(sessions)
    session.hear(farewell)
    assert (session.end, len(sessions), len(feed_of(sessions).viewers)) == (End.LEFT, 0, 0)
    session.hear(EnginePacket("4", "0"))  # the rest of the same body
    assert not feed_of(sessions).viewers


WORDS = [
    "0", "1", '0{"acks":true}', '2["request_update"]', '21["set_rate",{"hz":1e400}]', '22["set_rate",9e99]', "31[]",
    '52-["a"]', "62-1[]", "0/x,", "abc", '2["disconnect"]', '2["subscribe",[[]]]',
]  # fmt: skip
packets = st.one_of(
    st.sampled_from([EnginePacket("4", word) for word in WORDS]),
    st.sampled_from([EnginePacket(kind) for kind in "01235"] + [EnginePacket("4", b"x"), EnginePacket("6")]),
    st.builds(EnginePacket, st.sampled_from("0123456"), st.text(max_size=20)),
)


@given(st.lists(packets, max_size=30))
def test_no_sequence_of_packets_does_harm(said: list[EnginePacket]) -> None:
    async def main() -> None:
        sessions = house()
        session = opened(sessions)
        for packet in said:
            try:
                session.hear(packet)
            except BadPacket:
                session.close(End.BAD_PACKET)
            assert len(feed_of(sessions).viewers) == (session.viewer is not None)
            assert (session.end is None) or (session.viewer is None and len(sessions) == 0)
            assert len(session.leftover()) <= MOST_WAITING

    trio.run(main)
