"""The `fleet` command: what it prints and how it exits."""

from __future__ import annotations

import logging
import re
import signal
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner, Result

from fleet.config import Config
from tests.kit.served import served
from web import cli
from web.bind import bind
from web.layers import Origin
from web.serve import run

NO_SERVERS = "no servers configured: add `servers:` to config.yml or set FLEET_SERVERS"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no settings around, and pytest's own log handlers left alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "configure_logging", lambda level, style: None)


def fleet(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, env=environment)


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
    free = [bind("127.0.0.1", 0, "test") for _ in range(2)]
    for each in free:
        each.close()
    on_ports(*(each.port for each in free))
    ended = fleet("status")
    assert (ended.exit_code, ended.stdout.count("not running")) == (1, 2)


async def test_status_of_a_running_fleet_exits_with_0() -> None:
    async with served("a") as here:
        on_ports(*(int(url.rpartition(":")[2]) for url in (here.url, here.orchestrator_url)))
        ended = await trio.to_thread.run_sync(fleet, "status")
    assert ended.exit_code == 0, ended.output
    assert [line.split()[-1] for line in ended.stdout.splitlines()[:2]] == ["ok", "ok"]


def test_status_with_a_bad_configuration_exits_with_2() -> None:
    write("queue: 5\n")
    assert fleet("status").exit_code == 2
