"""Programs that some tests need and that no Python package brings: where they are, what to say without them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.places import ROOT

OWN = ROOT / ".tools"


def find(program: str) -> str | None:
    """Its path: on PATH, or where `make tools` puts it."""
    return shutil.which(program) or shutil.which(program, path=str(OWN))


def needs(program: str, how: str = "`make tools` gets it where there is apt") -> pytest.MarkDecorator:
    """Skips a test where the program is missing, and says so."""
    return pytest.mark.skipif(find(program) is None, reason=f"{program} is not on this machine; {how}")


def run(program: str, *arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end, at most 200 s; whoever calls looks at the exit code. No pager, no colours, no proxy."""
    path = find(program)
    assert path is not None
    words = [path, *map(str, arguments)]
    plain = {**os.environ, "PAGER": "cat", "NO_COLOR": "1", "no_proxy": "*"}
    return subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=200, env=plain, check=False)
