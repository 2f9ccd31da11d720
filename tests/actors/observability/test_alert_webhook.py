"""The webhook: what is delivered, to whom, how often; and where nothing is ever sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

from fleet.observability.alerting.webhook_payload import signature
from tests.actors.observability.test_alert_monitor import EPOCH, watched
from tests.kit.fleets.fleet import Fleet


@pytest.fixture(autouse=True)
def _wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.kit.clock.time.time", lambda: EPOCH + trio.current_time())


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the name server says."""
    known: dict[str, list[str]] = {}

    async def addresses(host: str) -> list[str]:
        return known.get(host, [])

    monkeypatch.setattr("actors.observability.alert_webhook._addresses", addresses)
    return known


class Receiver:
    """Where the webhook delivers to: answers as it is told, keeps what it got."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[httpx.Request] = []
        self.moments: list[float] = []
        self.hangs = False
        self.closed: set[str] = set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.closed:
            raise httpx.ConnectError("refused")
        await request.aread()
        self.got.append(request)
        self.moments.append(trio.current_time())
        if self.hangs:
            await trio.sleep_forever()
        return httpx.Response(self.statuses.pop(0) if self.statuses else 204)


@asynccontextmanager
async def sending(receiver: Receiver, url: str = "http://127.0.0.1:9/hook", **more: Any) -> AsyncIterator[Fleet]:
    """A fleet with a webhook. (The address is never dialled: the transport is the receiver.)"""
    async with watched("a", alerts={"webhook": {"url": url, "secret": "the-secret", **more}}) as fleet:
        fleet.system.monitor.webhook.transport = httpx.MockTransport(receiver)
        yield fleet


async def test_an_alert_is_delivered_signed(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    async with sending(receiver) as fleet:
        alert = fleet.system.monitor.test("ana")
        await trio.sleep(1)
        assert fleet.system.monitor.webhook.delivered == 1
    (request,) = receiver.got
    said = request.headers
    assert (said["x-fleet-event"], said["content-type"]) == ("alert.test", "application/json")
    assert said["x-fleet-signature"] == signature("the-secret", said["x-fleet-timestamp"], request.content)
    assert abs(int(said["x-fleet-timestamp"]) - EPOCH) < 10
    assert payload_of(request) == alert.payload()


def payload_of(request: httpx.Request) -> Any:
    return orjson.loads(request.content)


async def test_what_fails_is_tried_again_later_and_later_under_the_same_id(autojump_clock: MockClock) -> None:
    receiver = Receiver(500, 503, 429)
    async with sending(receiver) as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(60)
        hook = fleet.system.monitor.webhook
        assert (hook.delivered, hook.failed, len(hook)) == (1, 0, 0)
    assert len({request.headers["x-fleet-delivery"] for request in receiver.got}) == 1
    gaps = [after - before for before, after in pairwise(receiver.moments)]
    assert len(gaps) == 3
    assert all(0.75 * 2**n <= gap <= 1.25 * 2**n for n, gap in enumerate(gaps))


@pytest.mark.parametrize(("statuses", "attempts"), [((404,), 1), ((302,), 1), ((500, 500, 500), 3)])
async def test_an_alert_that_cannot_be_delivered_is_one_line_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, statuses: tuple[int, ...], attempts: int
) -> None:
    receiver = Receiver(*statuses)
    async with sending(receiver, attempts=3) as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(60)
        assert (fleet.system.monitor.webhook.failed, len(receiver.got)) == (1, attempts)
    lines = [record.getMessage() for record in caplog.records if "not delivered" in record.getMessage()]
    assert len(lines) == 1
    assert f"in {attempts} attempts: the receiver answered {statuses[-1]}" in lines[0]
    assert "hook" not in lines[0].replace("webhook", "")


async def test_a_receiver_that_hangs_costs_its_time_and_no_more(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    receiver.hangs = True
    async with sending(receiver, timeout=2.0, attempts=2) as fleet:
        began = trio.current_time()
        for _ in range(300):
            fleet.system.monitor.test("ana")
        hook = fleet.system.monitor.webhook
        assert (len(hook), hook.dropped) == (100, 200)
        await trio.sleep(10)
        assert hook.failed >= 1
        assert trio.current_time() - began < 11
        assert fleet.system.monitor.verdict.code == "healthy"


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://metadata.google.internal/", "http://0xa9fea9fe/", "http://[::1"]
)
async def test_nothing_is_ever_sent_to_where_clouds_keep_credentials(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    receiver = Receiver()
    async with sending(receiver, url=url) as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(5)
        assert fleet.system.monitor.webhook.failed == 1
    assert receiver.got == []
    assert any("its address" in record.getMessage() for record in caplog.records)


async def test_without_a_url_nothing_is_sent_nor_kept(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    async with sending(receiver, url="") as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(5)
        assert len(fleet.system.monitor.webhook) == 0
    assert receiver.got == []


async def test_a_name_is_sent_to_the_address_that_was_looked_at(
    autojump_clock: MockClock, names: dict[str, list[str]]
) -> None:
    """Asked for a second time, a name might mean where clouds keep credentials."""
    names["hooks.example"] = ["192.0.2.7", "2001:db8::7"]
    receiver = Receiver(500)
    async with sending(receiver, url="https://u:p@hooks.example:8443/x?y") as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(5)
        assert fleet.system.monitor.webhook.delivered == 1
    assert [str(request.url) for request in receiver.got] == [
        "https://u:p@192.0.2.7:8443/x?y",
        "https://u:p@[2001:db8::7]:8443/x?y",
    ]
    for request in receiver.got:
        assert request.headers["host"] == "hooks.example:8443"
        assert request.extensions["sni_hostname"] == "hooks.example"


async def test_an_address_that_takes_no_connection_costs_no_attempt(
    autojump_clock: MockClock, names: dict[str, list[str]]
) -> None:
    names["hooks.example"] = ["2001:db8::7", "192.0.2.7"]
    receiver = Receiver()
    receiver.closed = {"2001:db8::7"}
    async with sending(receiver, url="http://hooks.example/x", attempts=1) as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(1)
        assert fleet.system.monitor.webhook.delivered == 1
    assert [request.url.host for request in receiver.got] == ["192.0.2.7"]


async def test_a_name_with_one_forbidden_address_is_sent_to_none(
    autojump_clock: MockClock, names: dict[str, list[str]]
) -> None:
    names["hooks.example"] = ["192.0.2.7", "169.254.169.254"]
    receiver = Receiver()
    async with sending(receiver, url="https://hooks.example/x") as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(5)
        assert fleet.system.monitor.webhook.failed == 1
    assert receiver.got == []


async def test_a_name_that_cannot_be_resolved_is_tried_again_and_never_dialled_blindly(
    autojump_clock: MockClock, names: dict[str, list[str]]
) -> None:
    receiver = Receiver()
    async with sending(receiver, url="https://hooks.example/x") as fleet:
        fleet.system.monitor.test("ana")
        await trio.sleep(0.5)
        assert receiver.got == []
        names["hooks.example"] = ["192.0.2.7"]
        await trio.sleep(5)
        assert fleet.system.monitor.webhook.delivered == 1


async def test_an_address_that_two_readers_read_differently_is_judged_by_where_it_leads(
    autojump_clock: MockClock, names: dict[str, list[str]]
) -> None:
    receiver = Receiver()
    for url in ("http://169.254.169.254\\@127.0.0.1/", "http://127.0.0.1\\@169.254.169.254/"):
        async with sending(receiver, url=url) as fleet:
            fleet.system.monitor.test("ana")
            await trio.sleep(5)
    assert "169.254.169.254" not in [request.url.host for request in receiver.got]
