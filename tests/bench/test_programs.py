"""The benchmark's C programs against each other and against awkward answers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.processes import Crew, free_port, listens
from bench.reporting.results import closed_metrics, stream_metrics
from bench.scenarios import REQUESTS, Request

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both programs."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("there is no C compiler (apt-get install gcc libc6-dev)")
    folder = tmp_path_factory.mktemp("bench")
    strict = [compiler, "-O1", "-Wall", "-Wextra", "-Werror"]
    builds = [
        subprocess.Popen([*strict, "-o", folder / name, ROOT / "bench" / "native" / f"{name}.c"])
        for name in ("backend", "load")
    ]
    assert [build.wait() for build in builds] == [0, 0]
    return folder


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with Crew(tmp_path) as crew:
        yield crew


def served(crew: Crew, tools: Path, *words: str) -> str:
    port = free_port()
    crew.start("backend", [str(tools / "backend"), str(port), *words], 0)
    while not listens(port):
        time.sleep(0.005)
    return f"127.0.0.1:{port}"


def run_load(tools: Path, mode: str, target: str, request: Request, *words: str) -> dict[str, Any]:
    path = tools / "request.http"
    path.write_bytes(request.wire())
    done = subprocess.run(
        [tools / "load", mode, target, path, *words, "-e", request.end], capture_output=True, check=True, timeout=120
    )
    line: dict[str, Any] = json.loads(done.stdout)
    return line


@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_is_answered_whole(tools: Path, crew: Crew, name: str) -> None:
    line = run_load(tools, "closed", served(crew, tools, "100", "0"), REQUESTS[name], "4", "0.1")
    metrics = closed_metrics(line)
    assert metrics["rate"] > 0
    assert metrics["errors"] == 0
    assert 0 < metrics["p50_us"] <= metrics["p99_us"] <= metrics["max_us"] * 1.01


def test_paced_streams_come_at_their_pace(tools: Path, crew: Crew) -> None:
    target = served(crew, tools, "20", "10000")
    line = run_load(tools, "streams", target, REQUESTS["burst"], "50", "1000", "0.1", "-t", "5")
    metrics = stream_metrics(line)
    assert (line["completed"], metrics["errors"]) == (50, 0)
    assert 9_900 <= metrics["first_p50_us"] < 200_000
    assert metrics["rate"] > 0


def test_one_request_in_n_fails(tools: Path, crew: Crew) -> None:
    target = served(crew, tools, "1", "0", "-f", "10")
    line = run_load(tools, "closed", target, REQUESTS["short"], "2", "0.1")
    assert line["errors"]["status"] == pytest.approx(line["requests"] / 9, rel=0.1, abs=2)


def test_answers_that_end_early_or_otherwise_do_not_count(tools: Path, crew: Crew) -> None:
    target = served(crew, tools, "1", "0")
    other = Request("/api/version", "", "done")
    line = run_load(tools, "closed", target, other, "2", "0.05")
    assert line["requests"] == 0
    assert line["errors"]["short"] > 0


def test_nobody_listening_is_a_connect_error(tools: Path) -> None:
    line = run_load(tools, "streams", f"127.0.0.1:{free_port()}", REQUESTS["short"], "3", "1000", "1", "-t", "1")
    assert (line["completed"], line["errors"]["connect"]) == (0, 3)


def test_a_server_that_closes_after_each_answer_is_met_again(tools: Path) -> None:
    answer = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\n"done":true'

    def serve(listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                if not peer.recv(65536).startswith(b"POST"):
                    return
                peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=[listener])
        server.start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        line = run_load(tools, "closed", target, REQUESTS["short"], "1", "0.1")
        socket.create_connection(listener.getsockname()).close()
        server.join()
    assert line["requests"] > 5
    assert sum(line["errors"].values()) == 0


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'7;note=1\r\n{"don"\n\r\nA\r\n"a":1}\n\n{"\r\n0c\r\n"done":true}\r\n0\r\nTrailer: x\r\n\r\n'
)
RESPONSES: dict[bytes, str | None] = {
    b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n {'done':true}".replace(b"'", b'"'): None,
    CHUNKED: None,
    b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED: None,
    CHUNKED[:-2]: "short",
    b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n": "short",
    b'HTTP/1.1 200 OK\r\n\r\n"done":true': "short",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n": "status",
    b"": "reset",
}


@pytest.mark.parametrize("answer", RESPONSES)
def test_answers_are_parsed_however_they_are_split(tools: Path, tmp_path: Path, answer: bytes) -> None:
    """One byte at a time, over a Unix socket."""
    script = tmp_path / "answer.py"
    script.write_text(
        "import socket, sys, time\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen(); print(flush=True)\n"
        "peer, _ = listener.accept(); peer.recv(65536)\n"
        "for byte in bytes.fromhex(sys.argv[2]): peer.send(bytes([byte])); time.sleep(0.0002)\n"
    )
    path = tmp_path / "s"
    words = [sys.executable, "-I", str(script), str(path), answer.hex()]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        request = Request("/", "", '"done":true')
        line = run_load(tools, "streams", f"unix:{path}", request, "1", "1000", "1", "-t", "5")
    kinds = [kind for kind, count in line["errors"].items() if count]
    expected = RESPONSES[answer]
    assert kinds == ([expected] if expected else [])
    assert line["completed"] == (0 if expected else 1)
