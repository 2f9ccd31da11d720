"""What killed fleets leave in the temporary folder: removed by the next one, and nothing else is."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from web.process.private_listener import private_socket
from web.process.stale_directories import PrivateDirectory, sweep

_HOLD = """
import time
from web.process.private_listener import private_socket
with private_socket(time.time()) as inner:
    print(inner.path, flush=True)
    time.sleep(99)
"""


def test_a_killed_fleet_is_swept_up_and_a_live_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    holding = [subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, env=env) for _ in range(2)]
    try:
        places = [process.stdout.readline().decode().strip() for process in holding if process.stdout]
        holding[0].send_signal(signal.SIGKILL)
        holding[0].wait()
        assert os.path.exists(places[0])
        with private_socket(time.time()) as inner:
            assert not os.path.exists(os.path.dirname(places[0]))
            assert os.path.exists(places[1])
            assert os.path.dirname(inner.path).startswith(str(tmp_path))
    finally:
        for process in holding:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
    assert sweep(str(tmp_path), time.time()) == 1
    assert list(tmp_path.iterdir()) == []


def old(path: Path) -> Path:
    os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)
    return path


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(0o700)
    (precious / "lock").write_text("")
    (tmp_path / "fleet-aaaaaaaa").symlink_to(precious)
    for name, mode in (("fleet-bbbbbbbb", 0o755), ("fleet-short", 0o700), ("other-cccccccc", 0o700)):
        (tmp_path / name).mkdir(mode)
        (tmp_path / name).chmod(mode)
        (tmp_path / name / "lock").write_text("")
        old(tmp_path / name)
    full = tmp_path / "fleet-dddddddd"
    full.mkdir(0o700)
    (full / "lock").write_text("")
    (full / "thesis.txt").write_text("all of it")
    young = tmp_path / "fleet-eeeeeeee"
    young.mkdir(0o700)
    (tmp_path / "fleet-ffffffff").write_text("a file")
    linked = tmp_path / "fleet-gggggggg"
    linked.mkdir(0o700)
    (linked / "lock").symlink_to(precious / "lock")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert sweep(str(tmp_path), time.time()) == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert sweep(str(tmp_path / "nowhere"), time.time()) == 0


def test_directories_without_a_lock_go_when_they_are_old_and_nobody_listens(tmp_path: Path) -> None:
    empty, dead, live = (tmp_path / f"fleet-{letter * 8}" for letter in "abc")
    for each in (empty, dead, live):
        each.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(dead / "app.sock"))
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(live / "app.sock"))
        there.listen()
        for each in (empty, dead, live):
            old(each)
        assert sweep(str(tmp_path), time.time()) == 2
        assert [path.name for path in tmp_path.iterdir()] == [live.name]


def test_a_directory_is_held_from_its_first_moment(tmp_path: Path) -> None:
    made = PrivateDirectory(str(tmp_path))
    with open(Path(made.path) / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert sweep(str(tmp_path), time.time()) == 0
    made.remove()
    made.remove()
    assert list(tmp_path.iterdir()) == []
