"""`run_sim` in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from functools import partial

import pytest
import trio

from tests.kit.clients.raw import ask_once, parse
from web.simulator.cli import BAD_ARGUMENT, PORT_TAKEN, run_sim

PROGRAM = """
import sys
from web.simulator.cli import run_sim
sys.exit(run_sim(port=0, id="one", models="llama3:8b:4.7GB", slots=1, vram=24 * 10**9, tokens_per_second=100,
                 prefill_per_second=1000, load_seconds=0.1, faults=["slow-drip:0.1"]))
"""

simulate = partial(
    run_sim, id="one", slots=1, vram=10**10, tokens_per_second=9, prefill_per_second=9, load_seconds=1, faults=[]
)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_that_it_is_simulated_and_stops_cleanly(how: signal.Signals) -> None:
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
        assert process.stdout is not None
        async with process.stdout:
            line = bytes(await process.stdout.receive_some(1000)).decode()
            assert line.startswith("SIMULATED Ollama 'one' on http://127.0.0.1:")
            port = int(line.split(" with ")[0].rpartition(":")[2])
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            assert parse(await ask_once(stream, "GET", "/api/tags"))[0] == 200
            process.send_signal(how)
            assert await process.wait() == 0


def test_a_taken_port_is_one_clear_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert simulate(port=port, models="a") == PORT_TAKEN
    said = capsys.readouterr().err
    assert said == f"fleet sim: port {port} on 127.0.0.1 is already in use; choose another one\n"


@pytest.mark.parametrize("more", [{"models": "a b"}, {"models": "a", "faults": ["nonsense"]}])
def test_bad_arguments_are_explained(more: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(port=0, **more) == BAD_ARGUMENT  # type: ignore[arg-type]
    assert capsys.readouterr().err.startswith("fleet sim: ")
