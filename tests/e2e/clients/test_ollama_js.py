"""The official JavaScript client, unchanged, against the running fleet."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
import trio

from tests.kit.fleets.served import Served, served
from tests.kit.places import ROOT

FOLDER = ROOT / "tests" / "js"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None, reason="node is not on PATH"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules" / "ollama").is_dir(),
        reason="ollama-js is not installed: cd tests/js && npm install --no-package-lock",
    ),
]


async def play(fleet: Served, scenario: str) -> dict[str, Any]:
    """Run one scenario of client.mjs."""
    command = [str(NODE), "client.mjs", fleet.url, scenario]
    with trio.fail_after(60):
        ended = await trio.run_process(command, cwd=FOLDER, capture_stdout=True, stderr=subprocess.STDOUT)
    return dict(json.loads(ended.stdout))


async def test_it_lists_models() -> None:
    async with served("a", "b") as fleet:
        assert "llama3:8b" in (await play(fleet, "list"))["models"]


async def test_it_chats_with_and_without_streaming() -> None:
    async with served("a", "b") as fleet:
        assert "Simulated" in (await play(fleet, "chat"))["text"]
        streamed = await play(fleet, "stream")
        assert "Simulated" in streamed["text"]
        assert streamed["done"] is True
        assert streamed["chunks"] > 2
        await fleet.until_idle()
        fleet.assert_nothing_left()


async def test_it_generates_embeds_and_shows() -> None:
    async with served("a", "b") as fleet:
        generated = await play(fleet, "generate")
        assert "Simulated" in generated["whole"]
        assert "Simulated" in generated["text"]
        assert generated["done"] is True
        assert await play(fleet, "embed") == {"count": 2, "numbers": True}
        shown = await play(fleet, "show")
        assert shown["details"]["format"] == "gguf"
        assert "completion" in shown["capabilities"]
        await fleet.until_idle()
        fleet.assert_nothing_left()


async def test_it_sees_an_unknown_model_as_ollamas_own_error() -> None:
    async with served("a") as fleet:
        failed = await play(fleet, "missing")
        assert (failed["error"], failed["status"]) == ("model 'x' not found", 404)


async def test_it_sees_a_broken_stream_as_an_error() -> None:
    async with served("a") as fleet:
        fleet.sims["a"].host.faults.set("reset-mid-stream:3")
        failed = await play(fleet, "stream")
        assert failed["name"] == "Error"
        assert "broke off" in failed["error"]
