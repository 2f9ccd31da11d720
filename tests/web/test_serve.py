"""Starting and stopping the whole process's front end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from fleet.config import Config
from fleet.protocol.call import Call, Downstream
from tests.web.edge.raw import Served, head
from tests.web.fake_system import FakeSystem
from web.cli import main
from web.process.bind import PortTaken, bind
from web.serve import bind_all, serve


class Draining(FakeSystem):
    """Notes what the shutdown asked of it."""

    def __init__(self, **config: Any) -> None:
        super().__init__(
            server={"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}, **config
        )
        self.revoked = trio.Event()

    def drain(self) -> None:
        self.draining = True

    async def drained(self) -> None:
        while self.open:
            self.ended = trio.Event()
            await self.ended.wait()

    def revoke_all(self, why: str) -> None:
        self.revoked.set()


async def start(
    nursery: trio.Nursery, system: Draining, stop: trio.Event, hurry: trio.Event | None = None
) -> list[Served]:
    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(system.config, system=system.handle, stop=stop, hurry=hurry, task_status=task_status)

    urls: list[str] = await nursery.start(run)
    return [Served(url, stop) for url in urls]


async def test_every_port_serves_the_same_application() -> None:
    stop, system = trio.Event(), Draining()
    async with trio.open_nursery() as nursery:
        for server in await start(nursery, system, stop=stop):
            wire = await server.connect()
            assert (await wire.ask("GET", "/")).status == 200
            assert (await wire.ask("GET", "/health/live")).status == 200
            wire.stream.socket.close()
        stop.set()


async def test_a_drain_turns_readiness_off_and_lets_running_requests_end() -> None:
    stop, system, began, go = trio.Event(), Draining(), trio.Event(), trio.Event()

    async def slow(call: Call, down: Downstream) -> None:
        await down.start(200, [])
        began.set()
        await go.wait()
        await down.write(b"done")
        await down.finish()

    system.answering = slow
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            proxy, *_ = await start(nursery, system, stop=stop)
            running = await proxy.connect()
            await running.send(head("POST", "/api/chat", length=2) + b"{}")
            await began.wait()
            stop.set()
            await trio.testing.wait_all_tasks_blocked()
            probe = await (await proxy.connect()).ask("GET", "/health/ready")
            assert (probe.status, json.loads(probe.body)["reason"]) == (503, "shutting down")
            go.set()
            assert (await running.answer()).body == b"done"
            proxy.hang_up()
    assert system.revoked.is_set()


@pytest.mark.parametrize("hurried", [True, False])
async def test_what_does_not_end_in_time_is_cut(hurried: bool) -> None:
    stop, hurry, system, began = (
        trio.Event(),
        trio.Event(),
        Draining(drain_timeout=60 if hurried else 0.1),
        trio.Event(),
    )

    async def endless(call: Call, down: Downstream) -> None:
        began.set()
        await system.revoked.wait()

    system.answering = endless
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            proxy, *_ = await start(nursery, system, stop=stop, hurry=hurry)
            running = await proxy.connect()
            await running.send(head("POST", "/api/chat", length=2) + b"{}")
            await began.wait()
            stop.set()
            if hurried:
                hurry.set()
            assert await running.closed()
            proxy.hang_up()


@pytest.mark.parametrize("demo", [False, True])
def test_a_host_that_cannot_be_resolved_is_one_sentence_and_exit_code_2(
    demo: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config.model_validate({"server": {"host": "no-such-host.invalid"}})
    assert main._run(config, demo=demo) == main.BAD_CONFIG
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "server.host" in said[0]


async def test_a_taken_port_leaves_no_socket_open() -> None:
    taken = bind("127.0.0.1", 0, "x")
    try:
        system = Draining()
        section = system.config.server.model_copy(update={"orchestrator_port": taken.port})
        with pytest.raises(PortTaken, match=r"server\.orchestrator_port"):
            bind_all(system.config.model_copy(update={"server": section}))
    finally:
        taken.close()
