"""Traces end to end: what a collector gets, what a backend is told, and what it costs when there is no collector."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from actors.kit.clock import Clock
from actors.observability import otlp_exporter
from actors.observability import tracing as module
from actors.observability.tracing import Tracer, tracing
from fleet.config import Config
from fleet.observability.tracing.trace_context import read_parent
from tests.kit.clients.collector import Collector, collector
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served
from tests.web.cli.test_main import fleet as command
from web.cli import main
from web.simulator.engine.host import SeenRequest

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "secret words"}], "options": {"num_predict": 5}}
ROUTES = {
    "/api/chat": CHAT,
    "/api/generate": {"model": "tiny", "prompt": "secret words", "stream": False},
    "/api/embed": {"model": "nomic-embed-text", "input": "secret words"},
    "/v1/chat/completions": {"model": "tiny", "messages": CHAT["messages"], "max_tokens": 5},
    "/v1/messages": {"model": "tiny", "messages": CHAT["messages"], "max_tokens": 5},
}


@asynccontextmanager
async def traced(url: str, *servers: str, ratio: float = 1.0, **config: Any) -> AsyncIterator[tuple[Served, Tracer]]:
    """A product that sends its traces there; all are delivered (or given up) when the block has ended."""
    wanted = Config.model_validate({"otel": {"endpoint": url, "sample_ratio": ratio, "service_name": "here"}})
    async with tracing(wanted, Clock()) as tracer, served(*(servers or ("a",)), tracer=tracer, **config) as fleet:
        assert tracer is not None
        yield fleet, tracer


async def post(fleet: Served, path: str = "/api/chat", **headers: str) -> dict[str, str]:
    async with fleet.client(**headers) as client:
        answer = await client.post(path, json=ROUTES[path])
        return dict(answer.headers)


def asked(fleet: Served, path: str) -> list[SeenRequest]:
    return [seen for sim in fleet.sims.values() for seen in sim.host.seen(path)]


async def test_a_collector_gets_one_tree_per_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleet.request")
    with collector() as found:
        async with traced(found.url) as (fleet, _):
            await post(fleet, traceparent=PARENT, tracestate="a=1,b=2")
            (seen,) = asked(fleet, "/api/chat")
        assert set(found.paths) == {"/v1/traces"}
        assert found.resources[0]["service.name"] == "here"
        root, (queue, attempt) = found.tree(TRACE)
    assert (root.name, root.parent, root.state) == ("POST /api/chat", SPAN, "a=1,b=2")
    assert {queue.parent, attempt.parent} == {root.id}
    assert seen.header("traceparent") == f"00-{TRACE}-{attempt.id}-01"
    assert seen.header("tracestate") == "a=1,b=2"
    (name, first) = attempt.events[0]
    assert name == "first token"
    assert root.start <= queue.start <= queue.end <= attempt.start < first < attempt.end <= root.end
    assert attempt.attributes["server.port"] == fleet.sims["a"].port
    assert attempt.attributes["gen_ai.usage.output_tokens"] == 5
    assert "secret" not in repr(found.spans)
    assert any(getattr(line, "trace_id", "") == TRACE for line in caplog.records)


@both_lanes
async def test_the_context_goes_on_to_the_backend() -> None:
    with collector() as found:
        async with traced(found.url) as (fleet, _):
            for number, path in enumerate(ROUTES):
                await post(fleet, path, traceparent=f"00-{number + 1:032x}-{SPAN}-01", tracestate="a=1")
                await post(fleet, path)
            seen = [asked(fleet, path) for path in ROUTES]
        traces = [f"{number + 1:032x}" for number in range(len(ROUTES))]
        attempts = [found.tree(trace)[1][-1].id for trace in traces]
    for trace, attempt, (first, second) in zip(traces, attempts, seen, strict=True):
        assert first.header("traceparent") == f"00-{trace}-{attempt}-01"
        assert first.header("tracestate") == "a=1"
        assert [name for name, _ in first.headers].count("traceparent") == 1
        assert second.header("tracestate") is None
        own = read_parent((second.header("traceparent") or "").encode())
        assert own is not None
        assert own.sampled
        assert f"{own.trace_id:032x}" not in traces


@both_lanes
async def test_without_tracing_the_clients_own_context_goes_on_unchanged() -> None:
    async with served("a") as fleet:
        for path in ROUTES:
            await post(fleet, path, traceparent=PARENT, tracestate="a=1,b=2")
            (seen,) = asked(fleet, path)
            assert (seen.header("traceparent"), seen.header("tracestate")) == (PARENT, "a=1,b=2")
        await post(fleet, traceparent=PARENT, connection="traceparent")
        assert asked(fleet, "/api/chat")[-1].header("traceparent") is None


async def test_a_failover_is_two_attempts() -> None:
    with collector() as found:
        async with traced(found.url, "a", "b") as (fleet, _):
            warm = (await post(fleet))["x-fleet-server"]
            cold = {"a": "b", "b": "a"}[warm]
            fleet.sims[warm].host.faults.set("status:503:down")
            assert (await post(fleet, traceparent=PARENT))["x-fleet-attempts"] == "2"
            sent = [fleet.sims[each].host.seen("/api/chat")[-1].header("traceparent") for each in (warm, cold)]
        root, below = found.tree(TRACE)
    first, second = [span for span in below if span.kind == "client"]
    said = first.attributes
    assert (first.failed, said["error.type"], said["fleet.server"]) == (True, "refused_503", warm)
    said = second.attributes
    assert (second.failed, said["fleet.server"], said["fleet.attempt"]) == (False, cold, 2)
    assert (root.failed, root.attributes["fleet.attempts"]) == (False, 2)
    assert first.end <= second.start
    assert sent == [f"00-{TRACE}-{span.id}-01" for span in (first, second)]


async def test_a_client_that_leaves_is_no_error() -> None:
    with collector() as found:
        async with traced(found.url) as (fleet, _):
            fleet.sims["a"].host.faults.set("stall-mid-stream:2")
            async with (
                fleet.client(traceparent=PARENT) as client,
                client.stream("POST", "/api/chat", json=CHAT) as answer,
            ):
                async for _ in answer.aiter_raw():
                    break
            await fleet.until_idle()
        root, below = found.tree(TRACE)
    assert not any(span.failed for span in [root, *below])
    assert root.attributes["fleet.outcome"] == below[-1].attributes["fleet.outcome"] == "client_left"


async def test_a_hundred_requests_are_all_there() -> None:
    with collector() as found:
        async with (
            traced(found.url, "a", "b", slots=8) as (fleet, tracer),
            fleet.client() as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(100):
                nursery.start_soon(partial(client.post, "/api/chat", json=CHAT))
        assert (tracer.sent, tracer.dropped) == (100, 0)
    traces = {span.trace for span in found.spans}
    assert len(traces) == 100
    for trace in traces:
        root, below = found.tree(trace)
        assert {span.parent for span in below} == {root.id}
        assert [span.name for span in below if span.kind == "client"] == ["chat tiny"]
    assert len({span.id for span in found.spans}) == len(found.spans)


async def test_only_what_is_sampled_is_sent() -> None:
    with collector() as found:
        async with traced(found.url, ratio=0.0) as (fleet, _):
            await post(fleet, traceparent=PARENT)
            await post(fleet, traceparent=f"00-{'1' * 32}-{SPAN}-00")
            await post(fleet)
            parents = [read_parent((seen.header("traceparent") or "").encode()) for seen in asked(fleet, "/api/chat")]
        assert {span.trace for span in found.spans} == {TRACE}
    assert [parent is not None and parent.sampled for parent in parents] == [True, False, False]
    assert parents[1] is not None
    assert f"{parents[1].trace_id:032x}" == "1" * 32


@pytest.mark.parametrize(("status", "words"), [(400, "code: 400"), (0, "in time")])
async def test_a_collector_that_takes_nothing_costs_one_warning(
    status: int, words: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH", 0.3)
    with collector() as found:
        found.status = status
        url = found.url if status else "http://127.0.0.1:9"
        async with traced(url) as (fleet, tracer):
            for _ in range(3):
                assert (await post(fleet))["x-fleet-attempts"] == "1"
            fleet.system.statistics.request_log.flush()
            began = trio.current_time()
        assert trio.current_time() - began < 5.0
    assert (tracer.sent, tracer.dropped) == (0, 3)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "fleet.tracing"]
    assert "traces of 3 requests were lost" in line
    assert words in line
    assert not logging.getLogger("opentelemetry").propagate, "what it says is ours to say, once a minute"


SILENT = """
import sys, trio
import web.cli, web.serve, web.app, actors.system
from actors.kit.clock import Clock
from actors.observability.tracing import tracing
from fleet.config import Config

async def main():
    async with tracing(Config(), Clock()) as tracer:
        assert tracer is None

trio.run(main)
found = [name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "google", "requests")]
assert not found, found
"""


async def test_nothing_of_opentelemetry_is_imported_when_it_is_off() -> None:
    ended = await trio.run_process([sys.executable, "-c", SILENT], capture_stderr=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_without_the_extra_the_fleet_refuses_to_start_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_run", lambda *_, **__: 0)
    monkeypatch.delitem(sys.modules, "actors.observability.otlp_exporter", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    for word in ("serve", "check"):
        ended = command(word, FLEET_OTEL__ENDPOINT="http://127.0.0.1:4318")
        assert ended.exit_code == 2
        assert ended.stderr == (
            "fleet: otel.endpoint: needs OpenTelemetry: pip install 'fleet-for-ollama[otel]', or leave it empty\n"
        )


def test_settings_that_the_sdk_refuses_are_said_in_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    def refusing(**_: Any) -> None:
        raise ValueError("no such compression")

    monkeypatch.setattr(otlp_exporter, "OTLPSpanExporter", refusing)
    ended = command("check", FLEET_OTEL__ENDPOINT="http://127.0.0.1:4318")
    assert ended.exit_code == 2
    assert ended.stderr == "fleet: otel.endpoint: OpenTelemetry cannot be set up: no such compression\n"


def test_with_the_extra_it_does_not(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("check", FLEET_OTEL__ENDPOINT="http://127.0.0.1:4318").exit_code == 0


async def test_the_endpoint_may_name_the_path(tmp_path: Any) -> None:
    with collector() as found:
        async with traced(found.url + "/v1/traces/") as (fleet, _):
            await post(fleet)
        assert _paths(found) == {"/v1/traces"}
    with collector() as found:
        async with traced(found.url + "/team/") as (fleet, _):
            await post(fleet)
        assert _paths(found) == {"/team/v1/traces"}


def _paths(found: Collector) -> set[str]:
    return set(found.paths)
