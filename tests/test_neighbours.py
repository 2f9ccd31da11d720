"""One failing test breaks no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

LEAVES_A_MESS = """
import socket

class Held:
    def __init__(self):
        self.me, self.socket = self, socket.socket()  # nobody but the collector frees it

def test_fails():
    held = Held()
    assert held is None

def test_leaves_garbage():
    Held()

def test_is_innocent():
    import gc
    gc.collect()

def test_changes_the_process():
    import os
    os.environ["LEFT_BEHIND"] = "1"
"""


def test_what_a_test_leaves_behind_is_its_own_fault(tmp_path: Path) -> None:
    file = tmp_path / "test_mess.py"
    file.write_text(LEAVES_A_MESS)
    words = [
        "-p",
        "tests.kit.suite.settled",
        "-p",
        "no:randomly",
        "-W",
        "error",
        "-rA",
        "-q",
        "--tb=no",
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--rootdir", str(tmp_path), str(file)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = [line.split(" - ")[0].replace("test_mess.py::", "") for line in done.stdout.splitlines()]
    outcomes = sorted(line for line in said if line.split(" ")[0] in ("PASSED", "FAILED", "ERROR"))
    assert outcomes == [
        "ERROR test_changes_the_process",
        "ERROR test_fails",
        "ERROR test_leaves_garbage",
        "FAILED test_fails",
        "PASSED test_changes_the_process",
        "PASSED test_is_innocent",
        "PASSED test_leaves_garbage",
    ], done.stdout + done.stderr
