"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.processes import cores
from bench.proxies.install import LITELLM, OLLA, ROOT


def describe() -> dict[str, str]:
    """The machine and the versions, as words for the report."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": f"{os.cpu_count()}; {_pinning()}",
        "load before the run": f"{os.getloadavg()[0]:.2f} (1 minute)",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: text for name, text in _versions().items() if text},
    }


def _pinning() -> str:
    under_test, rest = cores()
    if under_test == rest:
        return "ONE usable core: program under test, servers and load generator share it, so ratios are compressed"
    if not shutil.which("taskset"):
        return "NOT pinned: taskset is not installed (apt-get install util-linux)"
    return f"program under test on core {under_test}, servers and load generator on core {rest}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = _output(["git", "-C", str(ROOT), "status", "--porcelain"])
    return f"{commit or 'unknown'}{' with uncommitted changes' if changed else ''}"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() or done.stderr.strip()


def _versions() -> dict[str, str]:
    naive = ", ".join(f"{name} {_package(name)}" for name in ("quart", "hypercorn", "httpx", "trio"))
    litellm = next(LITELLM.parent.parent.glob("lib/python*/site-packages/litellm-*.dist-info"), None)
    return {
        "nginx": _output(["nginx", "-v"]).rpartition("/")[2],
        "haproxy": _output(["haproxy", "-v"]).partition("version ")[2].partition(" ")[0],
        "naive": naive,
        "litellm": litellm.name.removesuffix(".dist-info").partition("-")[2] if litellm else "",
        "olla": _output([str(OLLA), "--version"]).partition("\n")[0] if OLLA.exists() else "",
    }


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
