"""SIGHUP: a reload from whoever sends it, an orderly end from a terminal that closes."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import ssl
import subprocess
import termios
import time
from pathlib import Path

import pytest
import trio
import trustme

from tests.e2e.processes import FLEET, Running, ended, serving, write_config
from tests.e2e.support import ask

_CONFIG = "/api/orchestrator/config"


async def max_size(running: Running) -> int:
    return int((await ask(running.url, "GET", _CONFIG)).json()["config"]["queue"]["maxSize"])


async def test_a_hangup_signal_reads_the_file_anew_and_ends_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, {}, queue={"max_size": 5}, reload={"watch": False}) as running:
        path = tmp_path / "fleet.yml"
        good = path.read_text()
        with trio.fail_after(30):
            path.write_text(good.replace("max_size: 5", "max_size: 6"))
            running.process.send_signal(signal.SIGHUP)
            while await max_size(running) != 6:
                await trio.sleep(0.02)
            for bad in ("", "queue: {max_size: many}"):  # what cannot be used changes nothing
                path.write_text(bad)
                running.process.send_signal(signal.SIGHUP)
                while (await ask(running.url, "GET", f"{_CONFIG}")).json().get("reload", {}).get("ok", False):
                    await trio.sleep(0.02)
                assert await max_size(running) == 6
            path.write_text(good.replace("max_size: 5", "max_size: 7"))
            for _ in range(50):
                running.process.send_signal(signal.SIGHUP)
            while await max_size(running) != 7:
                await trio.sleep(0.02)
            running.process.send_signal(signal.SIGTERM)
            while running.process.poll() is None:  # to the very end
                running.process.send_signal(signal.SIGHUP)
                await trio.sleep(0.001)
        assert running.process.returncode == 0


@pytest.mark.parametrize("close", [True, False], ids=["closed", "kept"])
def test_closing_the_terminal_drains_and_a_signal_to_a_terminal_reloads(tmp_path: Path, close: bool) -> None:
    path = write_config(tmp_path, {}, drain_timeout=5)
    master, slave = pty.openpty()
    command = [FLEET, "serve", "--config", str(path)]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_controlling,  # noqa: PLW1509
    )
    os.close(slave)
    try:
        said = b""
        while b"config " not in said:
            said += os.read(master, 65536)
        if not close:
            process.send_signal(signal.SIGHUP)
            while b"was read anew" not in said:
                said += os.read(master, 65536)
            assert process.poll() is None
        os.close(master)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_hangup_signal_reads_the_certificate_anew(tmp_path: Path) -> None:
    files = {"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    _write_pair(files)
    path = write_config(tmp_path, {}, server={"tls": files, **_ANY_PORTS})
    with ended(subprocess.Popen([FLEET, "serve", "--config", str(path)], stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        while "config" not in process.stdout.readline():
            pass
        before = ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
        (tmp_path / "k.pem").write_text("no key")  # what cannot be used changes nothing
        process.send_signal(signal.SIGHUP)
        assert ssl.get_server_certificate(("127.0.0.1", port), timeout=5) == before
        _write_pair(files)
        deadline = time.monotonic() + 20
        while ssl.get_server_certificate(("127.0.0.1", port), timeout=5) == before:
            assert time.monotonic() < deadline
            process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


_ANY_PORTS = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0, "host": "127.0.0.1"}


def _write_pair(files: dict[str, str]) -> None:
    leaf = trustme.CA().issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(files["key"])
    for number, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(files["certificate"], append=number > 0)


def _controlling() -> None:
    """The child's standard input becomes its controlling terminal, and no `nohup` around the tests is handed down."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
