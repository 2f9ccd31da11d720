"""The fleet as an operator meets it: processes, signals, exit codes, sentences."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import ollama
import pytest
import trio

from tests.e2e.processes import FLEET, Running, ended, fleet_of_two, serving, write_config
from tests.e2e.support import ask, connect
from tests.kit.clients.raw import read_until, request_bytes

pytestmark = pytest.mark.slow

SLOW_ANSWERS = ("--load-seconds", "0", "--tokens-per-second", "20")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One `fleet` command to its end."""
    return subprocess.run(
        [FLEET, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )


async def begin_stream(running: Running, tokens: int = 20) -> trio.SocketStream:
    """A stream that has begun to answer."""
    stream = await connect(running.url)
    body = {"model": "llama3:8b", "prompt": "Why?", "options": {"num_predict": tokens}}
    await stream.send_all(request_bytes("POST", "/api/generate", body, "Connection: close"))
    with trio.fail_after(60):
        await read_until(stream, b'"done":false')
    return stream


async def test_the_official_client_talks_to_the_process(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, "--load-seconds", "0.1") as running:

        def talk() -> str:
            with closing(ollama.Client(running.url)) as client:
                assert {str(model.model) for model in client.list().models} >= {"llama3:8b"}
                parts = client.chat("llama3:8b", [{"role": "user", "content": "Hi"}], stream=True)
                return "".join(part.message.content or "" for part in parts)

        with trio.fail_after(60):
            assert "Simulated" in await trio.to_thread.run_sync(talk)
        answer = await ask(running.orchestrator_url, "GET", "/api/orchestrator/servers")
        assert answer.json()["count"] == 2


async def test_sigterm_lets_a_stream_finish_and_exits_with_0(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, *SLOW_ANSWERS) as running:
        stream = await begin_stream(running, tokens=30)
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            while (ready := await ask(running.url, "GET", "/health/ready")).status != 503:
                await trio.sleep(0.01)
        assert ready.json()["reason"] == "shutting down"
        refused = await ask(running.url, "POST", "/api/generate", {"model": "llama3:8b", "prompt": "x"})
        assert (refused.status, refused.headers["x-fleet-error"]) == (503, "SHUTTING_DOWN")
        assert int(refused.headers["retry-after"]) >= 1
        with trio.fail_after(60):
            async with stream:
                assert b'"done":true' in await read_until(stream, b"0\r\n\r\n")
        assert await running.exit_code() == 0


async def test_sigterm_ends_an_idle_fleet_at_once(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, drain_timeout=600) as running:
        idle = await connect(running.url)
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit_code(within=60) == 0
        await idle.aclose()


async def test_a_stream_beyond_the_drain_timeout_gets_its_error_record(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, *SLOW_ANSWERS, drain_timeout=0.3) as running:
        stream = await begin_stream(running, tokens=2000)
        running.process.send_signal(signal.SIGINT)
        with trio.fail_after(20):
            async with stream:
                last = await read_until(stream, b"0\r\n\r\n")
        records = [json.loads(line) for line in last.splitlines() if line.startswith(b"{")]
        assert isinstance(records[-1]["error"], str)
        assert await running.exit_code() == 0


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, *SLOW_ANSWERS, drain_timeout=600) as running:
        stream = await begin_stream(running, tokens=2000)
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            while (await ask(running.url, "GET", "/health/ready")).status != 503:
                await trio.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit_code(within=60) == 0
        await stream.aclose()


async def test_nothing_but_warnings_is_logged_in_a_quiet_life(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, "--load-seconds", "0.1") as running:
        for path in ("/", "/nowhere", "/api/tags"):
            await ask(running.url, "GET", path)
        await (await begin_stream(running)).aclose()
        running.process.send_signal(signal.SIGTERM)
        await running.exit_code()
        assert running.process.stderr is not None
        log = running.process.stderr.read()
        assert not re.search("ERROR|Traceback", log), log


@pytest.mark.parametrize("setting", ["proxy_port", "orchestrator_port"])
def test_a_taken_port_is_one_sentence_and_exit_code_3(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0, setting: port}
        path = write_config(tmp_path, {"a": "http://127.0.0.1:1"}, server=ports)
        ended = run("serve", "--config", str(path))
    assert ended.returncode == 3
    [sentence] = ended.stderr.splitlines()
    assert f"127.0.0.1:{port}" in sentence
    assert f"server.{setting}" in sentence


def test_a_bad_configuration_lists_every_problem_and_exits_with_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(
        "servers: [{id: 'a b', url: 'ftp://x'}, {id: c, url: http://h:1, max_concurrency: 0}]\n"
        "queue: {max_size: -1, typo: 1}\nlogging: {level: LOUD}\n"
    )
    for command in ("serve", "check"):
        ended = run(command, "--config", str(path))
        assert ended.returncode == 2
        assert not ended.stdout
        for what in ("servers.0.id", "servers.0.url", "servers.1.max_concurrency", "queue.max_size", "queue.typo",
                     "logging.level"):  # fmt: skip
            assert what in ended.stderr, (what, ended.stderr)
        assert len(ended.stderr.splitlines()) == 6
        assert "Traceback" not in ended.stderr


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    ended = run("serve", "--config", str(tmp_path / "none.yml"))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    (tmp_path / "broken.yml").write_text("a: [\n")
    ended = run("check", "--config", str(tmp_path / "broken.yml"))
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_an_open_address_without_keys_does_not_start(tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        {},
        server={"host": "0.0.0.0", "proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0},
    )
    assert run("serve", "--config", str(path)).returncode == 2


def test_check_shows_what_is_in_effect_and_where_it_comes_from(tmp_path: Path) -> None:
    path = write_config(tmp_path, {"a": "http://127.0.0.1:1"}, queue={"max_size": 7})
    ended = run("check", "--config", str(path), LOG_LEVEL="debug")
    assert ended.returncode == 0
    assert re.search(r"queue\.max_size\b.*\b7\b.*fleet\.yml", ended.stdout), ended.stdout
    assert re.search(r"logging\.level\b.*DEBUG.*LOG_LEVEL", ended.stdout), ended.stdout


def test_version() -> None:
    assert run("--version").stdout.strip() == f"fleet {version('fleet-for-ollama')}"


async def test_status_tells_running_from_not_running(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path) as running:
        ports = [int(url.rpartition(":")[2]) for url in (running.url, running.orchestrator_url)]
        server = {"proxy_port": ports[0], "orchestrator_port": ports[1], "dashboard_port": 0, "metrics_port": 0}
        (tmp_path / "told").mkdir()
        path = write_config(tmp_path / "told", {}, server=server)
        during = await trio.to_thread.run_sync(run, "status", "--config", str(path))
    after = run("status", "--config", str(path))
    assert (after.returncode, after.stdout.count("not running")) == (1, 2), after.stdout
    assert (during.returncode, during.stdout.count("not running")) == (0, 0), during.stdout
    for port in ports:
        assert str(port) in during.stdout


def test_a_fleet_whose_servers_are_all_away_still_starts_and_stops(tmp_path: Path) -> None:
    with serving(tmp_path, {"a": "http://127.0.0.1:9"}) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0


async def test_the_process_follows_its_file_and_saves_into_it(tmp_path: Path) -> None:
    """`fleet serve` knows where its configuration came from; and following it does not delay its end."""
    with serving(tmp_path, {}, queue={"max_size": 5}) as running:
        path, url = tmp_path / "fleet.yml", "/api/orchestrator/config"
        with trio.fail_after(60):
            path.write_text(path.read_text().replace("max_size: 5", "max_size: 6  # mine"))
            while (shown := (await ask(running.url, "GET", url)).json())["config"]["queue"]["maxSize"] != 6:
                await trio.sleep(0.05)
            assert shown["source"] == str(path)
            assert (await ask(running.url, "PATCH", f"{url}/queue", {"maxSize": 7})).status == 200
            assert (await ask(running.url, "POST", f"{url}/save", {})).status == 200
            assert "max_size: 7  # mine" in path.read_text()
            assert (await ask(running.url, "POST", url, {"drainTimeout": 7})).status == 200
            running.process.send_signal(signal.SIGTERM)
            assert await running.exit_code() == 0
            assert running.process.stdout is not None
            assert "may end within 7 s" in running.process.stdout.read()


def test_the_first_thing_said_is_where_the_fleet_listens(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": "http://127.0.0.1:1"})
    environment = {**os.environ, "FLEET_OOPS": "1"}
    pipe = subprocess.PIPE
    command = [FLEET, "serve", "--config", str(config)]
    with ended(subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
    assert lines[0].startswith("proxy        http://127.0.0.1:")
    assert lines[4].startswith("config       ")
    assert "FLEET_OOPS" in "".join(lines[5:])
