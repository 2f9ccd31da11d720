"""What a service manager is told, and the systemd unit that relies on it."""

from __future__ import annotations

import logging
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.config import Config, load
from tests.kit.places import ROOT
from tests.kit.suite import tools
from web.process import systemd
from web.serve import HARD_EXIT_AFTER, Setting, run

UNIT = ROOT / "deploy" / "systemd" / "fleet.service"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's end of the channel."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(5)
        channel.bind(name if request.param == "path" else f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else f"@{name}")
        yield channel


class _Stopped(Setting):
    """Looks what the manager was told once all ports are open, then sends the signal that ends the fleet."""

    def __init__(self, manager: socket.socket) -> None:
        self.manager = manager
        self.told: list[str] = []

    async def beside(self, urls: list[str]) -> None:
        self.told.append(self.manager.recv(999).decode())
        signal.raise_signal(signal.SIGTERM)


def test_the_manager_learns_of_start_and_end(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.serve._arm_hard_exit", lambda seconds: None)  # or it ends the tests, minutes later
    ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}
    config = Config.model_validate({"server": ports, "drain_timeout": 300, "store": {"enabled": False}})
    setting = _Stopped(manager)
    assert run(config, lambda line: None, source="defaults", setting=setting) == 0
    assert setting.told == ["READY=1"]
    state, extended = manager.recv(999).decode().split("\n")
    assert state == "STOPPING=1"
    assert int(extended.removeprefix("EXTEND_TIMEOUT_USEC=")) > (300 + HARD_EXIT_AFTER) * 1e6


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234"])
def test_without_a_manager_nobody_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.ready()
    assert not caplog.records


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@" + "x" * 200])
def test_a_manager_that_is_gone_is_a_warning(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with caplog.at_level(logging.WARNING):
        systemd.ready()
    assert "cannot be told READY" in caplog.text


# ---- the unit


def setting(key: str) -> str:
    """The value of a key of the unit, which is there once."""
    (value,) = re.findall(rf"(?m)^{key}=(.*)$", UNIT.read_text("utf-8"))
    return str(value)


def test_the_unit_waits_longer_than_the_fleet_takes_to_end() -> None:
    assert setting("Type") == "notify"
    assert float(setting("TimeoutStopSec")) > Config().drain_timeout + HARD_EXIT_AFTER


def test_the_unit_s_settings_are_settings() -> None:
    stored = setting("Environment=FLEET_STORE__URL")
    config = load("", {"FLEET_STORE__URL": stored}, {}, source="none").config
    assert config.store.url == "sqlite:////var/lib/fleet/fleet.db"
    assert setting("StateDirectory") == "fleet"


@tools.needs("systemd-analyze", "systemd has it")
def test_systemd_has_nothing_against_the_unit(tmp_path: Path) -> None:
    """The program's place is another one here: systemd looks whether it is there."""
    text = UNIT.read_text("utf-8")
    assert text.count("ExecStart=/opt/fleet/bin/fleet ") == 1
    copy = tmp_path / "fleet.service"
    copy.write_text(text.replace("/opt/fleet/bin/fleet ", f"{sys.executable} "), "utf-8")
    verified = tools.run("systemd-analyze", "verify", "--man=no", copy)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@tools.needs("systemd-analyze", "systemd has it")
def test_the_unit_exposes_little() -> None:
    """systemd's own score: 0 is locked away, 10 is open to all."""
    judged = tools.run("systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", UNIT)
    assert judged.returncode == 0, judged.stdout
