"""Who a client is: the other end of its connection, or what a proxy says that the operator has named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from tests.e2e.support import until
from tests.kit.clients.edge import browser, generate, in_front_of, whole_answer
from tests.kit.suite.records import recent

ME = "127.0.0.1"
DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
TRUSTING = {"trusted_proxies": [ME]}


def whole(head: bytes, body: bytes) -> Sequence[bytes]:
    return [whole_answer(DONE)]


CLAIMS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({}, (), ME),
    ({}, ("X-Forwarded-For: 203.0.113.9",), ME),
    ({}, ("X-Fleet-Peer: 203.0.113.9",), ME),
    ({}, ("x-fleet-peer: 203.0.113.9", "X-Forwarded-For: 203.0.113.8", "Connection: x-fleet-peer"), ME),
    ({"trusted_proxies": ["10.0.0.0/8"]}, ("X-Forwarded-For: 203.0.113.9",), ME),
    (TRUSTING, (), ME),
    (TRUSTING, ("X-Forwarded-For: 203.0.113.9",), "203.0.113.9"),
    (TRUSTING, ("X-Forwarded-For: 198.51.100.1, 203.0.113.9",), "203.0.113.9"),
    (TRUSTING, ("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9"), "203.0.113.9"),
    (TRUSTING, ("X-Forwarded-For: 203.0.113.9, 127.0.0.1",), "203.0.113.9"),
    (TRUSTING, ("X-Forwarded-For: 2001:db8::7",), "2001:db8::7"),
    (TRUSTING, ("X-Forwarded-For: somebody\twith words",), ME),
    (TRUSTING, ("X-Fleet-Peer: 203.0.113.9",), ME),
    (TRUSTING, ("X-Forwarded-For: 203.0.113.9", "X-Fleet-Peer: 198.51.100.1"), "203.0.113.9"),
]


@pytest.mark.parametrize(("server", "fields", "client"), CLAIMS)
async def test_a_claim_counts_only_from_a_proxy_that_is_trusted(
    server: dict[str, Any], fields: tuple[str, ...], client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fleet.admin")
    async with in_front_of(whole, server=server, security={"anonymous_role": "admin"}) as (fleet, _):
        mine = await browser(fleet.url)
        async with mine.stream:
            await mine.send(generate("Hi", *fields))
            assert (await mine.answer("POST")).status == 200
            await until(lambda: recent(fleet.system.statistics.request_log))
            assert recent(fleet.system.statistics.request_log)[-1].client == client
            assert (await mine.ask("POST", "/api/orchestrator/queue/resume", None, *fields)).status == 200
    (line,) = [vars(record) for record in caplog.records if record.name == "fleet.admin"]
    assert line["client"] == client


async def test_one_connection_may_speak_for_many() -> None:
    """A proxy keeps its connections: what is known of one request's client is not the next one's."""
    async with in_front_of(whole, server=TRUSTING) as (fleet, _):
        proxy = await browser(fleet.url)
        async with proxy.stream:
            for number in (1, 2, 1, 3):
                await proxy.send(generate("Hi", f"X-Forwarded-For: 203.0.113.{number}"))
                await proxy.answer("POST")
            await proxy.send(generate("Hi"))
            await proxy.answer("POST")
        await until(lambda: len(recent(fleet.system.statistics.request_log)) == 5)
        seen = [record.client for record in recent(fleet.system.statistics.request_log)]
        assert seen[-5:] == ["203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.3", ME]


async def test_a_request_id_is_not_the_next_request_s() -> None:
    """Heads are remembered; what belongs to one request is not."""
    async with in_front_of(whole) as (fleet, backend):
        client = await browser(fleet.url)
        async with client.stream:
            ids = []
            for fields in ((), ("X-Request-Id: mine",), (), ("X-Request-Id: mine",), ()):
                await client.send(generate("Hi", *fields))
                ids.append((await client.answer("POST")).headers["x-request-id"])
            await client.send(generate("Hi", "Origin: http://evil.example"))
            ids.append((await client.answer("POST")).headers["x-request-id"])
            await client.send(generate("Hi", "Origin: http://evil.example"))
            ids.append((await client.answer("POST")).headers["x-request-id"])
            await client.send(generate("Hi", model="missing"))
            ids.append((await client.answer("POST")).headers["x-request-id"])
            await client.send(generate("Hi", model="missing"))
            ids.append((await client.answer("POST")).headers["x-request-id"])
        assert ids[1] == ids[3] == "mine"
        assert len(set(ids)) == len(ids) - 1
        assert len(backend.seen) == 5
