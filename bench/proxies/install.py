"""What contenders need: looked for, or installed below .bench/ on demand. The answer is None, or why it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bench.processes import say

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".bench"
FLEET = Path(sys.executable).parent / "fleet"
LITELLM = CACHE / "litellm" / "bin" / "litellm"
OLLA_MODULE = "github.com/thushan/olla"
PATIENCE = 600
"""Seconds for one installation."""
OLLA = CACHE / "olla" / "olla"

Missing = Callable[[], str | None]


def program(name: str) -> Missing:
    """A program of a Debian package of the same name."""

    def missing() -> str | None:
        return None if shutil.which(name) else f"{name} is not installed (apt-get install {name})"

    return missing


def nothing_missing() -> str | None:
    return None


def fleet() -> str | None:
    return None if FLEET.exists() else f"{FLEET.name} is not installed beside this Python (make bench installs it)"


def _attempt(command: list[str], **env: str) -> str | None:
    """Run an installer, for ten minutes at the most; the last line of its complaint if it fails."""
    try:
        done = subprocess.run(
            command, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be installed: {type(error).__name__} with {command[0]}"
    said = done.stderr.strip() or done.stdout.strip() or "no reason given"
    return None if not done.returncode else f"could not be installed: {said.splitlines()[-1].strip()}"


@cache
def litellm() -> str | None:
    if LITELLM.exists():
        return None
    say("installing LiteLLM into .bench/litellm, this takes a minute ...")
    folder = LITELLM.parent.parent
    return _attempt([sys.executable, "-m", "venv", str(folder)]) or _attempt(
        [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "litellm[proxy]"]
    )


@cache
def olla() -> str | None:
    if OLLA.exists():
        return None
    if not shutil.which("go"):
        return "Go, which builds Olla, is not installed (apt-get install golang)"
    if _attempt(["go", "list", "-m", f"{OLLA_MODULE}@latest"], GOFLAGS="-mod=mod"):
        return f"its module, {OLLA_MODULE}, is not to be had from here, or not with this Go"
    say("building Olla into .bench/olla, this takes a minute ...")
    return _attempt(["go", "install", f"{OLLA_MODULE}@latest"], GOBIN=str(OLLA.parent))


@cache
def py_spy() -> str | None:
    if (CACHE / "py-spy" / "bin" / "py-spy").exists():
        return None
    say("installing py-spy into .bench/py-spy ...")
    folder = CACHE / "py-spy"
    return _attempt([sys.executable, "-m", "venv", str(folder)]) or _attempt(
        [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "py-spy"]
    )
