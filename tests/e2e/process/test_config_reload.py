"""The failure row "bad config on reload", and a good one, under live traffic."""

from __future__ import annotations

from pathlib import Path

import httpx
import orjson
import pytest
import trio

from actors.config.file_watch import Watch
from tests.kit.clients.admin import ask
from tests.kit.fleets.configured import Configured, configured

LONG = {"model": "tiny", "prompt": "x", "options": {"num_predict": 400}}
SHORT = {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": 2}}


class Stream:
    """One running stream: `begun` with its first line, `lines` when it has ended."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.lines: list[bytes] = []

    async def run(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/api/generate", json=LONG) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                self.lines.append(line.encode())
                self.begun.set()

    @property
    def complete(self) -> bool:
        return bool(self.lines) and orjson.loads(self.lines[-1])["done"] is True


async def _until(here: Configured, trouble: bool) -> None:
    while (here.settings.trouble is not None) is not trouble:
        await trio.sleep(0.02)


@pytest.mark.slow
async def test_bad_config_on_reload(tmp_path: Path) -> None:
    """Live streams go on, new requests go on, the old configuration stays, every problem is listed with its path."""
    async with configured(tmp_path, "a", "b") as here, here.client() as client, trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nursery.start_soon(Watch(here.settings).run)
            streams = [Stream() for _ in range(3)]
            async with trio.open_nursery() as running:
                for stream in streams:
                    running.start_soon(stream.run, client)
                for stream in streams:
                    await stream.begun.wait()
                before, good = here.system.config, here.path.read_text()
                here.rewrite(good.replace("id: b", "id: a") + "queue: {max_size: -1}\nretry: {typo: 1}\n")
                await _until(here, trouble=True)
                answer = await ask(here, "POST", "/config/reload", {}, status=400)
                problems = {each["path"] for each in answer["problems"]}
                assert problems == {"servers.1.id", "queue.max_size", "retry.typo"}
                assert (await client.post("/api/generate", json=SHORT)).status_code == 200
                assert here.system.config is before
                assert any(not stream.complete for stream in streams)  # they ran all the while
            assert all(stream.complete for stream in streams)
            here.rewrite(good)
            await _until(here, trouble=False)
            here.assert_nothing_left()
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_good_reload_drops_no_request_though_it_changes_the_fleet(tmp_path: Path) -> None:
    unlimited = "security: {rate_limiting: {enabled: false}}\n"
    async with (
        configured(tmp_path, "a", "b", "c", text=unlimited) as here,
        here.client() as client,
        trio.open_nursery() as nursery,
    ):
        with trio.fail_after(60):
            statuses: list[int] = []
            done = trio.Event()

            async def ask_on() -> None:
                while not done.is_set():
                    statuses.append((await client.post("/api/generate", json=SHORT)).status_code)

            streams = [Stream() for _ in range(6)]
            async with trio.open_nursery() as running:
                for stream in streams:
                    running.start_soon(stream.run, client)
                for stream in streams:
                    await stream.begun.wait()
                for _ in range(4):
                    running.start_soon(ask_on)
                text = here.path.read_text()
                without_b = text.replace(text[text.index("  - id: b") : text.index("  - id: c")], "")
                more = "queue: {max_size: 7}\nload_balancer: {policy: random}\ncircuit_breaker: {open_timeout: 1000}\n"
                here.rewrite(without_b + more)
                await ask(here, "POST", "/config/reload", {})
                served_by_now = len(statuses)
                while len(statuses) < served_by_now + 20:
                    await trio.sleep(0.01)
                here.rewrite(text)
                await ask(here, "POST", "/config/reload", {})
                served_by_now = len(statuses)
                while len(statuses) < served_by_now + 20:
                    await trio.sleep(0.01)
                done.set()
            assert all(stream.complete for stream in streams)
            assert statuses
            assert set(statuses) == {200}
            assert {str(server) for server in here.system.servers} == {"a", "b", "c"}
        nursery.cancel_scope.cancel()
