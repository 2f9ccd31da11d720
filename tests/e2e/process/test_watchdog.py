"""A process whose interpreter is frozen, one call in C that never returns, ends all the same when it is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.e2e.processes import ended
from tests.kit.places import ROOT

FREEZING = """
import re, sys
from fleet.config import Config
from web import serve

class Freezing(serve.Setting):
    async def beside(self, urls):
        print("frozen", flush=True)
        {what}

serve.HARD_EXIT_AFTER = 0.5
ports = dict.fromkeys(("proxy_port", "orchestrator_port", "dashboard_port", "metrics_port"), 0)
config = {{"server": ports, "drain_timeout": {drain_timeout}, "store": {{"enabled": False}}}}
sys.exit(serve.run(Config.model_validate(config), lambda line: None, source="test", setting=Freezing()))
"""
FOREVER = "re.match('(a+)+$', 'a' * 64 + 'b')"
QUIET = "await __import__('trio').sleep_forever()"


@contextmanager
def fleet(what: str, drain_timeout: float) -> Iterator[subprocess.Popen[str]]:
    """A fleet that does `what` as soon as its ports are open."""
    program = FREEZING.format(what=what, drain_timeout=drain_timeout)
    started = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with ended(started) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "frozen\n"
        yield process


def test_one_signal_ends_a_frozen_process_after_the_drain_timeout() -> None:
    with fleet(FOREVER, drain_timeout=0.5) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert "killed from outside" in said
        assert "in beside" in said  # where it stood


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_signals_end_a_frozen_process_now(number: signal.Signals) -> None:
    with fleet(FOREVER, drain_timeout=300) as process:
        (outside,) = psutil.Process(process.pid).children()
        before = outside.num_ctx_switches().voluntary
        process.send_signal(number)
        while outside.num_ctx_switches().voluntary <= before:
            pass  # two signals in one moment would be one to the kernel: wait until the first has been looked at
        said = ended_by(process, number)
        assert process.returncode == -signal.SIGKILL
        assert "killed from outside" in said


def ended_by(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a process has said until this signal ended it, which is sent again where it was one with that before it."""
    for _ in range(6):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=15)[1]
    raise AssertionError("six signals have not ended it")


@pytest.mark.parametrize("signals", [1, 2])
def test_a_process_that_is_alive_ends_by_itself_and_leaves_nobody_behind(signals: int) -> None:
    with fleet(QUIET, drain_timeout=300) as process:
        (outside,) = psutil.Process(process.pid).children()
        assert sum(outside.cpu_times()[:2]) < 1  # it sleeps
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "killed" not in said
        assert not outside.is_running()
