"""A real browser, where there is one: Chromium without a window, asked by its own debugging protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(PATH is None, reason="Chromium is not installed (Debian: apt install chromium)")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


class Tab:
    """One page. `run` gives the value of a JavaScript expression, also on pages that allow no script."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_message(json.dumps({"id": self._number, "method": method, "params": params}))
        while (answer := json.loads(await self._socket.get_message())).get("id") != self._number:
            pass
        return answer.get("result", answer)  # type: ignore[no-any-return]

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, expression: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer.get("result", {}).get("value")

    async def until(self, expression: str, within: float = 30.0) -> None:
        """Wait until an expression is true on whatever page is shown then."""
        with trio.fail_after(within):
            while not await self.run(expression):
                await trio.sleep(0.1)


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    """With all its processes, which are a group of their own."""
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


@asynccontextmanager
async def tab(home: Path, *flags: str) -> AsyncIterator[Tab]:
    """A fresh browser with one page; `home` is an empty directory for it."""
    assert PATH is not None
    command = [PATH, *_FLAGS, *flags, f"--user-data-dir={home}", "--remote-debugging-port=0", "about:blank"]
    with _running(command):
        port, page = await _page(trio.Path(home) / "DevToolsActivePort")
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", page, max_message_size=2**24)
            yield Tab(socket)
            nursery.cancel_scope.cancel()


async def _page(told: trio.Path) -> tuple[int, str]:
    """Where its protocol listens, and the path of its only page, as soon as it says so."""
    with trio.fail_after(30):
        while not await told.exists() or not (words := (await told.read_text()).split()):
            await trio.sleep(0.05)
        port = int(words[0])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            while not (pages := [each for each in (await client.get("/json")).json() if each["type"] == "page"]):
                await trio.sleep(0.05)
    return port, pages[0]["webSocketDebuggerUrl"].split(str(port), 1)[1]
