"""What one client of Socket.IO may cost, and who may be one: bounds, room, keys; on a virtual clock."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from fleet.common.errors import TooManyClients
from fleet.config import Config
from tests.kit.fleets.live import THREE, FakeFeed, connected, end_of, feed_of, house, metrics, opened, say, told
from web.live import engine_io
from web.live.engine_io import POLLING, EnginePacket
from web.live.ping_pace import BURST, PER_SECOND, PingPace
from web.live.session import MOST_WAITING, End, Over
from web.live.sessions import LEAST_PENDING

KEY = "fleet_" + "k" * 43


async def test_a_client_that_confirms_has_two_updates_on_the_way_at_most(autojump_clock: MockClock) -> None:
    sessions = house()
    session = await connected(sessions, '{"acks":true}')
    feed_of(sessions).tell(*(metrics(number) for number in range(4)), THREE[2])
    assert await told(session) == ['421["metrics_update",{"seq":0}]']
    assert await told(session) == ['422["metrics_update",{"seq":1}]']
    with trio.move_on_after(5) as waiting:
        await session.take()
    assert waiting.cancelled_caught
    say(session, "39[]", "32[]")
    assert await told(session) == ['423["metrics_update",{"seq":2}]']
    say(session, "31[]", "33[]")
    assert await told(session) == ['424["metrics_update",{"seq":3}]']
    assert (await told(session))[0].startswith('42["system_alert",')


async def test_a_client_that_does_not_confirm_for_thirty_seconds_has_to_come_again(autojump_clock: MockClock) -> None:
    sessions = house()
    session = await connected(sessions, '{"acks":true}')
    feed_of(sessions).tell(metrics(0), metrics(1), metrics(2))
    await session.take()
    await session.take()
    assert await told(session) == ["2"]
    session.hear(EnginePacket(engine_io.PONG))
    with pytest.raises(Over):
        await session.take()
    assert session.end is End.TRY_LATER
    assert trio.current_time() == pytest.approx(30.0)


async def test_answers_that_nobody_fetches_are_bounded() -> None:
    sessions = house()
    session = await connected(sessions)
    for number in range(MOST_WAITING + 1):
        say(session, f'2{number}["subscribe"]')
    assert session.end is End.TRY_LATER
    assert len(session.leftover()) == MOST_WAITING
    assert not feed_of(sessions).viewers


async def test_clients_that_do_not_connect_make_room_for_others() -> None:
    sessions = house(dashboard={"max_clients": 10})
    first = opened(sessions)
    for _ in range(LEAST_PENDING - 1):
        opened(sessions)
    assert len(sessions) == LEAST_PENDING
    last = opened(sessions)
    assert (first.end, last.end, len(sessions)) == (End.TRY_LATER, None, LEAST_PENDING)


async def test_who_opens_them_by_the_hundred_shuts_nobody_else_out() -> None:
    sessions = house(dashboard={"max_clients": 10})
    quiet = opened(sessions, "10.0.0.9")
    crowd = [opened(sessions, "10.6.6.6") for _ in range(3 * LEAST_PENDING)]
    assert quiet.end is None
    assert len(sessions) == LEAST_PENDING
    assert [each.end for each in crowd[-3:]] == [None] * 3


async def test_as_many_clients_as_there_is_room_for_may_connect_at_once() -> None:
    sessions = house(FakeFeed(most=200), dashboard={"max_clients": 200, "max_clients_per_address": 200})
    clients = [opened(sessions) for _ in range(200)]
    for client in clients:
        say(client, "0")
    assert len(feed_of(sessions).viewers) == 200


async def test_a_client_that_answers_pings_without_ever_polling_has_to_go(autojump_clock: MockClock) -> None:
    session = await connected(house())
    for _ in range(4):
        await trio.sleep(10)
        session.hear(EnginePacket(engine_io.PONG))
        session.look()
    assert session.leftover() == [b"2"]
    session.poll(begins=True)
    await trio.sleep(10)
    session.look()
    session.hear(EnginePacket(engine_io.PONG))
    session.poll(begins=False)
    await trio.sleep(10)
    session.look()
    session.hear(EnginePacket(engine_io.PONG))
    session.look()
    assert end_of(session) is None
    await trio.sleep(36)
    session.hear(EnginePacket(engine_io.PONG))
    session.look()
    assert end_of(session) is End.SILENT


async def test_one_address_and_all_together_have_their_limits() -> None:
    sessions = house(dashboard={"max_clients": 3, "max_clients_per_address": 2})
    for _ in range(2):
        await connected(sessions)
    with pytest.raises(TooManyClients, match="of this address"):
        opened(sessions)
    other = opened(sessions, "10.0.0.2")
    say(other, "0")
    with pytest.raises(TooManyClients, match="3 clients"):
        opened(sessions, "10.0.0.3")


async def test_who_finds_the_room_full_when_connecting_loses_the_connection_and_so_tries_again() -> None:
    session = opened(house(FakeFeed(most=0)))
    say(session, "0")
    assert (session.end, session.leftover()) == (End.TRY_LATER, [])


SECURED = {"api_keys": [KEY], "require_api_key": True}


@pytest.mark.parametrize("auth", ["", "{}", '{"token":"wrong"}', '{"token":1}', '{"token":null}', '{"token":""}'])
async def test_without_a_key_nothing_is_told(auth: str) -> None:
    sessions = house(security=SECURED)
    session = opened(sessions)
    say(session, "0" + auth)
    (answer,) = await told(session)
    assert answer.startswith('44{"message":"a valid API key is needed"')
    assert '"code":"UNAUTHORIZED"' in answer
    assert not feed_of(sessions).viewers


async def test_a_key_in_the_first_packet_opens() -> None:
    await connected(house(security=SECURED), json.dumps({"token": KEY}))


@pytest.mark.parametrize(
    ("name", "value"), [(b"authorization", f"Bearer {KEY}"), (b"x-api-key", KEY), (b"api-key", KEY)]
)
async def test_a_key_in_the_head_of_the_first_request_opens(name: bytes, value: str) -> None:
    sessions = house(security=SECURED)
    session = sessions.open("10.0.0.1", [(name, value.encode())], POLLING)
    say(session, "0")
    assert (await told(session))[0].startswith("40")


async def test_a_client_s_role_is_not_enough() -> None:
    keys = [{"name": "app", "role": "client", "key": KEY}]
    session = opened(house(security={"keys": keys, "require_api_key": True}))
    say(session, json.dumps({"token": KEY}).join(("0", "")))
    (answer,) = await told(session)
    assert '"reason":"ROLE_TOO_LOW"' in answer


async def test_a_key_that_is_revoked_ends_what_it_had_opened() -> None:
    sessions = house(security=SECURED)
    session = await connected(sessions, json.dumps({"token": KEY}))
    changed = Config.model_validate({"security": {"api_keys": ["fleet_" + "x" * 43], "require_api_key": True}})
    cast(Any, sessions.system).config = changed
    assert await told(session) == ["41"]
    assert session.end is End.UNWANTED
    assert not feed_of(sessions).viewers


async def test_a_crash_in_one_session_ends_that_one(expected_errors: list[str]) -> None:
    expected_errors.append("session has crashed")
    sessions = house()
    one, other = await connected(sessions), await connected(sessions)
    one._shown = cast(Any, None)
    sessions.look()
    assert (one.end, other.end) == (End.CRASHED, None)


def test_whoever_says_too_much_waits() -> None:
    pace = PingPace(0.0)
    assert [pace.wait(0.0) for _ in range(BURST)] == [0.0] * BURST
    assert pace.wait(0.0) == pytest.approx(1 / PER_SECOND)
    assert pace.wait(10.0) == 0.0
