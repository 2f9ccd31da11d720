"""What a real browser makes of the page: it lets one in, and it is there again after a restart of the fleet."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.e2e.processes import Running, serving, simulator
from tests.kit.clients.chromium import Tab, needs_chromium, tab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), needs_chromium]

KEY = "wall-key-0123456789"
KEYS = {"keys": [{"name": "wall", "role": "operator", "key": KEY}]}
SHOWS = "document.body.innerText.includes('gpu-a')"
FRAMED = "frames[0].frames[0].document.body.innerText.includes('gpu-a')"


async def log_in(page: Tab, url: str) -> None:
    await page.go(url)
    await page.until("!!document.querySelector('input[name=key]')")
    await page.run(f"document.querySelector('input[name=key]').value = '{KEY}'")
    await page.run("document.querySelector('form button').click()")
    await page.until(SHOWS)


async def stop(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert await running.exit_code(30.0) == 0


@pytest.mark.parametrize(("path", "shows"), [("", SHOWS), ("/wall", FRAMED)])
async def test_a_page_is_there_again_after_a_restart_without_scripts(tmp_path: Path, path: str, shows: str) -> None:
    with simulator("--id", "gpu-a") as sim:
        # scripts are off for the page, not for who asks it from outside
        async with tab(tmp_path / "browser", "--blink-settings=scriptEnabled=false") as page:
            with serving(tmp_path, {"gpu-a": sim.url}, security=KEYS) as running:
                url = running.dashboard_url
                await log_in(page, url)
                await page.go(url + path)
                await page.until(shows)
                await stop(running)
            with trio.fail_after(30):
                while await page.run(shows):  # what throws, as on a page of the browser's own, is no value
                    await trio.sleep(0.1)
            port = int(url.rpartition(":")[2])
            ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": port, "metrics_port": 0}
            with serving(tmp_path, {"gpu-a": sim.url}, security=KEYS, server=ports) as running:
                await page.until(shows, within=60.0)
                await stop(running)
