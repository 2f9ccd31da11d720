"""The tracer alone: what it keeps, what it drops, what it says about it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from actors.kit.clock import Clock
from actors.observability import tracing as module
from actors.observability.tracing import Tracer
from actors.state.messages import OURSELVES
from fleet.observability.tracing.spans import Span
from fleet.observability.tracing.trace_context import Trace
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

FAST = Profile(load_seconds=0.01, tokens_per_second=1000.0)


class Sink:
    """An exporter that keeps what it is given; `trouble` is what it answers, or raises if it is an exception."""

    def __init__(self, trouble: str | Exception = "") -> None:
        self.trouble = trouble
        self.batches: list[Sequence[tuple[Trace, list[Span]]]] = []
        self.closed = False

    def send(self, spans: Sequence[tuple[Trace, list[Span]]]) -> str:
        if isinstance(self.trouble, Exception):
            raise self.trouble
        self.batches.append(spans)
        return self.trouble

    def close(self) -> None:
        self.closed = True


def tracer_to(sink: Sink, ratio: float = 1.0) -> Tracer:
    return Tracer(ratio, sink, Clock())


async def ask(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        await fleet.system.exchange(chat(), Client())
    fleet.system.statistics.request_log.flush()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.name == "fleet.tracing"]


async def test_what_has_no_room_is_counted_and_said_once_a_minute(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    tracer = tracer_to(Sink())
    async with open_fleet("a", tracer=tracer) as fleet:
        await ask(fleet, 5)
        assert tracer.dropped == 2
        await trio.sleep(30)
        await ask(fleet, 2)
        assert warnings(caplog) == ["traces of 1 requests were lost: too many wait to be sent"]
        await trio.sleep(31)
        await ask(fleet, 1)
        assert warnings(caplog)[1:] == ["traces of 4 requests were lost: too many wait to be sent"]
        fleet.assert_nothing_left()


async def test_the_last_losses_are_said_however_soon_after_the_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does an exporter that cannot be closed keep the process from its end."""
    monkeypatch.setattr(module, "MOST", 1)

    def close() -> None:
        raise OSError("stuck")

    sink = Sink()
    tracer = tracer_to(sink)
    async with open_fleet("a", tracer=tracer) as fleet:
        monkeypatch.setattr(sink, "close", close)
        await ask(fleet, 2)
        await ask(fleet, 3)
        await tracer.finish(0.0)
    assert warnings(caplog) == [
        "traces of 1 requests were lost: too many wait to be sent",
        "traces of 4 requests were lost: the collector did not take them in time",
        "the exporter of traces did not close: OSError",
    ]
    assert tracer.dropped == 5


async def test_an_exporter_that_crashes_stops_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REST", 0.01)
    sink = Sink(ZeroDivisionError("secret"))
    tracer = tracer_to(sink)
    async with open_fleet(("a", FAST), tracer=tracer) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(tracer.run)
        await ask(fleet, 1)
        with trio.fail_after(60):
            while not tracer.dropped:
                await trio.sleep(0.01)
            sink.trouble = ""
            await ask(fleet, 1)
            await tracer.finish(5.0)
        assert (tracer.sent, tracer.dropped, sink.closed) == (1, 1, True)
        assert warnings(caplog) == ["traces of 1 requests were lost: ZeroDivisionError"]
        nursery.cancel_scope.cancel()


async def test_our_own_requests_are_nobodys_traces(autojump_clock: MockClock) -> None:
    async with open_fleet("a", tracer=tracer_to(Sink())) as fleet:
        call = chat()
        call.client = OURSELVES
        await fleet.system.exchange(call, Client())
        sent = fleet["a"].host.seen("/api/chat")[0].header("traceparent") or ""
        assert sent.endswith("-00")


async def test_a_share_is_sampled_and_all_get_ids(autojump_clock: MockClock) -> None:
    tracer = tracer_to(Sink(), ratio=0.5)
    async with open_fleet("a", tracer=tracer):
        marks = [tracer.begin(chat()).sampled for _ in range(400)]
        assert 120 < sum(marks) < 280
        assert len({tracer.begin(chat()).name for _ in range(100)}) == 100


async def test_names_in_the_log_are_those_in_the_trace(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleet.request")
    async with open_fleet("a", tracer=tracer_to(Sink())) as fleet:
        await ask(fleet, 1)
        (sent,) = fleet["a"].host.seen("/api/chat")
        logged = [getattr(line, "trace_id", "") for line in caplog.records if line.name == "fleet.request"]
        assert logged == [(sent.header("traceparent") or "").split("-")[1]]
