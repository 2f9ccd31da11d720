"""The `fleet` command: what it prints and how it exits."""

from __future__ import annotations

import logging
import re
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner, Result

from actors.config.sources import Origin
from fleet.config import Config
from tests.kit.fleets.served import served
from tests.kit.fleets.silent import silent_ports
from tests.kit.places import ROOT
from web.cli import main
from web.process.bind import bind
from web.serve import run

NO_SERVERS = "no servers configured: add `servers:` to config.yml or set FLEET_SERVERS"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no settings around, and pytest's own log handlers left alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "configure_logging", lambda level, style: None)


def fleet(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main.app, arguments, env=environment)


def write(text: str, name: str = "config.yml") -> str:
    Path(name).write_text(text)
    return name


def on_ports(proxy: int, orchestrator: int) -> str:
    return write(
        f"server: {{proxy_port: {proxy}, orchestrator_port: {orchestrator}, dashboard_port: 0, metrics_port: 0}}\n"
    )


# ---- check


def test_check_prints_every_value_with_its_source() -> None:
    write("queue:\n  max_size: 7\nservers:\n  - {id: a, url: 'http://a:1', api_key: sekret-key}\n")
    ended = fleet("check", FLEET_QUEUE__AGEING_SECONDS="9")
    assert ended.exit_code == 0
    for pattern in (
        r"^queue\.max_size = 7 +# config\.yml:2$",
        r"^queue\.ageing_seconds = 9(\.0)? +# .*FLEET_QUEUE__AGEING_SECONDS",
        r"^server\.proxy_port = 11435 +# default$",
    ):
        assert re.search(pattern, ended.stdout, re.MULTILINE), (pattern, ended.stdout)
    assert "sekret" not in ended.output


BAD = [
    ("queue: {max_size: -1, typo: 1}\n", ["queue.max_size:", "queue.typo: unknown key"]),
    ("server: {host: 0.0.0.0}\n", ["server.host is 0.0.0.0"]),
    ("a: [\n", ["is no valid YAML"]),
]


@pytest.mark.parametrize("command", ["check", "serve", "serve --demo"])
@pytest.mark.parametrize(("text", "sentences"), BAD)
def test_a_configuration_that_cannot_be_used_exits_with_2(text: str, sentences: list[str], command: str) -> None:
    write(text)
    ended = fleet(*command.split())
    assert ended.exit_code == 2
    assert all(line.startswith("fleet: ") for line in ended.stderr.splitlines())
    assert len(ended.stderr.splitlines()) == len(sentences)
    for sentence in sentences:
        assert sentence in ended.stderr


def test_a_file_that_is_not_there_exits_with_2() -> None:
    ended = fleet("serve", "--config", "none.yml")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "none.yml" in ended.stderr


# ---- serve


@pytest.mark.parametrize("setting", ["proxy_port", "orchestrator_port"])
def test_a_taken_port_exits_with_3_and_names_the_setting(setting: str) -> None:
    taken = bind("127.0.0.1", 0, "test")
    try:
        ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0, setting: taken.port}
        on_ports(ports["proxy_port"], ports["orchestrator_port"])
        ended = fleet("serve")
    finally:
        taken.close()
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert f"server.{setting}" in ended.stderr
    assert str(taken.port) in ended.stderr


SOURCES = [
    # files, arguments, what is said
    ([], [], "defaults (there is no config.yml here)"),
    (["config.yml"], [], "config.yml"),
    (["config.yml", "other.yml"], ["--config", "other.yml"], "other.yml"),
]


@pytest.mark.parametrize(("files", "arguments", "source"), SOURCES)
def test_serve_knows_which_file_it_read(
    files: list[str], arguments: list[str], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []

    def note(config: Config, say: object, *, source: str, origin: Origin) -> int:
        sources.append(source)
        assert origin.name == (source if files else "config.yml")  # what a save writes
        assert origin.path.is_absolute()
        assert (origin.reading.text is None) == (not files)
        return 0

    monkeypatch.setattr("web.serve.run", note)
    for name in files:
        write("queue: {max_size: 7}\n", name)
    assert (fleet("serve", *arguments).exit_code, sources) == (0, [source])


class _Stopping(list[str]):
    """What was said; stops the fleet by its own signal once everything was."""

    def say(self, line: str) -> None:
        self.append(line)
        if line.startswith("config"):
            trio.lowlevel.spawn_system_task(_interrupt)


async def _interrupt() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_a_fleet_without_servers_started_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("web.serve._arm_hard_exit", lambda seconds: None)
    config = Config.model_validate(
        {
            "server": {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0},
            "limits": {"connections": 10},
        }
    )
    said = _Stopping()
    assert run(config, said.say, source="config.yml") == 0
    assert [line.split()[0] for line in said] == [
        "proxy",
        "orchestrator",
        "dashboard",
        "metrics",
        "config",
        "stopping:",
    ]
    assert said[4] == "config       config.yml"
    warnings = [(line.name, line.getMessage()) for line in caplog.records if line.levelno == logging.WARNING]
    assert warnings == [("fleet.serve", NO_SERVERS)]


# ---- status


def test_status_without_a_fleet_exits_with_1() -> None:
    with silent_ports(2) as ports:
        on_ports(*ports)
        ended = fleet("status")
    assert (ended.exit_code, ended.stdout.count("not running")) == (1, 2)


async def test_status_of_a_running_fleet_exits_with_0() -> None:
    async with served("a") as here:
        on_ports(*(int(url.rpartition(":")[2]) for url in (here.url, here.orchestrator_url)))
        ended = await trio.to_thread.run_sync(fleet, "status")
    assert ended.exit_code == 0, ended.output
    assert [line.split()[-1] for line in ended.stdout.splitlines()[:2]] == ["ok", "ok"]


def test_status_with_a_bad_configuration_exits_with_2_if_nobody_answers() -> None:
    with silent_ports(2) as ports:
        write(Path(on_ports(*ports)).read_text() + "queue: 5\n")
        ended = fleet("status")
    assert ended.exit_code == 2, ended.output


# ---- the environment of the command line


def test_fleet_config_names_the_file_and_the_option_wins() -> None:
    write("queue: {max_size: 7}\n", "a.yml")
    write("queue: {max_size: 8}\n", "b.yml")
    assert re.search(r"^queue\.max_size = 7 +# a\.yml:1$", fleet("check", FLEET_CONFIG="a.yml").stdout, re.MULTILINE)
    assert "queue.max_size = 8" in fleet("check", "--config", "b.yml", FLEET_CONFIG="a.yml").stdout
    write("security: {keys_file: mine.jsonl}\n", "a.yml")
    assert fleet("keys", "add", "ci", FLEET_CONFIG="a.yml").exit_code == 0
    assert Path("mine.jsonl").exists()
    assert fleet("check", FLEET_CONFIG="none.yml").exit_code == 2


@pytest.mark.parametrize("command", ["check", "serve", "status"])
def test_a_variable_that_means_nothing_is_told_with_the_nearest_name_and_ignored(
    command: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Origin] = []

    def note(config: Config, source: str, origin: Origin, *, demo: bool) -> int:
        seen.append(origin)
        return 0

    monkeypatch.setattr(main, "_run", note)
    with silent_ports(1) as (port,):
        on_ports(port, 0)
        ended = fleet(command, FLEET_SERVER__PROXYPORT="1", FLEET_CONTEXT="x", FLEET_QUEUE__MAX_SIZE="9")
    assert ended.exit_code == (1 if command == "status" else 0), ended.output
    told = ended.stderr + caplog.text
    assert "FLEET_SERVER__PROXYPORT is ignored: unknown environment variable" in told
    assert "FLEET_SERVER__PROXY_PORT" in told
    assert "FLEET_CONTEXT" in told
    for origin in seen:  # a reload must not stumble over it either
        assert origin.env["FLEET_QUEUE__MAX_SIZE"] == "9"
        assert "FLEET_SERVER__PROXYPORT" not in origin.env


def test_a_variable_with_a_bad_value_is_still_an_error() -> None:
    ended = fleet("check", FLEET_QUEUE__MAX_SIZE="many", FLEET_OOPS="1")
    assert ended.exit_code == 2
    assert "queue.max_size" in ended.stderr


# ---- status of somebody


async def test_status_asks_the_fleet_of_fleet_url() -> None:
    async with served("a") as here:
        for arguments, env in (
            (["--url", here.orchestrator_url + "/"], {}),
            ([], {"FLEET_URL": here.orchestrator_url.removeprefix("http://")}),
        ):
            ended = await trio.to_thread.run_sync(partial(fleet, "status", *arguments, **env))
            assert ended.exit_code == 0, ended.output
            assert ended.stdout.split()[:3] == ["fleet", here.orchestrator_url, "ok"]
    assert fleet("status", FLEET_URL="http://127.0.0.1:1").exit_code == 1
    for bad in ("ftp://x", "http://", "http://[::1", "://"):
        assert fleet("status", "--url", bad).exit_code == 2, bad


async def test_status_shows_its_key_if_it_has_one(tmp_path: Path) -> None:
    key, heard = "ops-key-0123456789", list[bytes]()
    file = tmp_path / "token"
    file.write_text(f"{key}\n")
    async with stranger(b'{"status":"ok","services":{}}', heard) as url:
        for arguments, env in (([], {}), ([], {"FLEET_TOKEN": key}), (["--token-file", str(file)], {})):
            ended = await trio.to_thread.run_sync(partial(fleet, "status", "--url", url, *arguments, **env))
            assert ended.exit_code == 0, ended.output
            assert key not in ended.output
    shown = f"authorization: bearer {key}".encode()
    assert [shown in head.lower() for head in heard] == [False, True, True]


@pytest.mark.parametrize("content", ["", "\n", "two words\nlines", "k" * 5000, "é" * 10])
def test_a_token_file_that_holds_no_key_is_refused(content: str) -> None:
    Path("token").write_text(content, encoding="utf-8")
    ended = fleet("status", "--url", "http://127.0.0.1:1", "--token-file", "token")
    assert ended.exit_code == 2
    assert content.strip() == "" or content.strip() not in ended.output
    assert fleet("status", "--url", "http://127.0.0.1:1", "--token-file", "none").exit_code == 2


@pytest.mark.parametrize("rest", ["queue: 5\n", "a: [\n", "nonsense: true\n", "\tx"])
async def test_status_finds_the_running_fleet_though_its_file_is_broken(rest: str) -> None:
    async with served("a") as here:
        on_ports(*(int(url.rpartition(":")[2]) for url in (here.url, here.orchestrator_url)))
        write(await trio.Path("config.yml").read_text() + rest)
        ended = await trio.to_thread.run_sync(fleet, "status")
    assert ended.exit_code == 0, ended.output
    assert [line.split()[-1] for line in ended.stdout.splitlines()[:2]] == ["ok", "ok"]
    assert "fleet: config.yml cannot be used as it is" in ended.stderr


# ---- check, in the end


@asynccontextmanager
async def stranger(body: bytes = b"{}", heard: list[bytes] | None = None) -> AsyncIterator[str]:
    """A server that answers everybody with this, and is no Ollama; `heard` gets what it was asked."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            head = await stream.receive_some()
            if heard is not None:
                heard.append(bytes(head))
            length = b"Content-Length: %d\r\n" % len(body)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n" + body)

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_check_ends_with_ok_and_asks_servers_if_told_to() -> None:
    assert fleet("check").stdout.splitlines()[-1] == "ok"
    async with served("a") as here, stranger() as other:
        write(f"servers: [{{id: a, url: '{here.sims['a'].url}'}}]\n")
        ended = await trio.to_thread.run_sync(fleet, "check", "--probe")
        assert ended.exit_code == 0, ended.output
        assert re.search(r"^a +http://\S+ +Ollama \d", ended.stdout, re.MULTILINE)
        assert ended.stdout.splitlines()[-1] == "ok"
        down = "{id: b, url: 'http://127.0.0.1:1'}"
        write(f"servers: [{{id: a, url: '{here.sims['a'].url}'}}, {down}, {{id: c, url: '{other}'}}]\n")
        ended = await trio.to_thread.run_sync(fleet, "check", "--probe")
    assert ended.exit_code == 1
    assert "cannot be reached" in ended.stdout
    assert "not as an Ollama does" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("not ok: 2 of 3 servers")


async def test_the_version_is_told_without_importing_the_fleet() -> None:
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["fleet"]
    module, _, name = entry.partition(":")
    assert name == "main"
    asking = f"import sys; sys.argv[1:] = ['--version']\nfrom {module} import main\nmain()\n"
    ended = await trio.run_process([sys.executable, "-c", f"{asking}print(*sys.modules)"], capture_stdout=True)
    version, modules = ended.stdout.decode().splitlines()
    assert version.startswith("fleet ")
    heavy = {"trio", "pydantic", "quart", "httpx", "orjson", "yaml", "sqlalchemy", "typer", "fleet.config", "actors"}
    assert heavy.isdisjoint(modules.split())
    assert len(modules.split()) < 200  # 130 or so; each costs a fifth of a millisecond
