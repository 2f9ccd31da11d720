"""The processes of a run: started on their core, watched through /proc, and ended for certain."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cores() -> tuple[int, int]:
    """The core of the program under test, and the core of everything else; the same one if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]


def pinned(core: int, command: list[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


def _environment() -> dict[str, str]:
    """Ours, without what would reroute or reconfigure a contender."""
    strange = ("_proxy", "fleet_", "log_level")
    return {name: value for name, value in os.environ.items() if not any(part in name.lower() for part in strange)}


@dataclass(frozen=True)
class Process:
    """One started command with all its children: they share a process group."""

    popen: subprocess.Popen[bytes]
    log: Path

    def members(self) -> Iterator[list[str]]:
        """The fields of /proc/PID/stat after the command's name, of every process of the group."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.popen.pid:
                    yield fields

    def rss_kib(self) -> float:
        return sum(int(fields[21]) for fields in self.members()) * PAGE / 1024

    def cpu_seconds(self) -> float:
        return sum(int(fields[11]) + int(fields[12]) for fields in self.members()) / TICKS

    def last_words(self) -> str:
        """The last line of its output that has words on it."""
        lines = [line.strip(" |+-") for line in self.log.read_text(errors="replace").splitlines()]
        return next((line[:500] for line in reversed(lines) if line), "it said nothing")

    def stop(self) -> None:
        """End the whole group, politely for two seconds. Safe to call twice."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(2)
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)


class Crew:
    """A context: whatever was started in it is gone after it, also after an error or Ctrl-C."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[Process] = []

    def start(
        self, name: str, command: list[str], core: int, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Process:
        """Start a command on a core; its output goes to NAME.log. Raises OSError."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                pinned(core, command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**_environment(), **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        process = Process(popen, log)
        self._processes.append(process)
        return process

    def stop(self, process: Process) -> None:
        process.stop()
        self._processes.remove(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process._signal(signal.SIGTERM)
        for process in self._processes:
            process.stop()
        self._processes.clear()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
