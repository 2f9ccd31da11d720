"""Real processes and a real disk: killed at any moment, a history opens again, and its sums are those of its rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.kit.places import ROOT

KILLS = 50


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_history_that_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.actors.storage.history.history_victim"]
    arguments = [str(tmp_path / "data" / "history.db"), str(KILLS)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300)
    rounds = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == KILLS
    for each in rounds:
        assert each["rows"] >= each["promised"]
        assert (each["whole"], each["sums"], each["aside"]) == (True, True, False)
    assert rounds[-1]["rows"] > KILLS, "the processes had time to write something"
