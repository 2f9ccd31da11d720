"""Every test leaves the process as it found it, and what it leaves to the garbage collector ends in its own name.

Without that one failing test breaks its neighbours: the traceback keeps sockets and generators of its frames alive, and
whoever runs when they are collected is told of them.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What has been imported by now stays; to look through all of it after every test would take 0.1 s each time."""
    _collect()


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """Around everything else of a test, since nothing it needs comes earlier."""
    before = _process()
    yield
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):  # pytest keeps them until the next test runs
        if hasattr(sys, name):
            delattr(sys, name)
    _collect()  # pytest looks for what could not be raised meanwhile when the teardown has ended
    after = _process()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert not changed, f"the test has changed the process, was and is: {changed}"


def _collect() -> None:
    """What has survived is not looked at again: the next time costs as much as has been made since."""
    gc.collect()
    gc.freeze()


def _process() -> dict[str, Any]:
    """What tests share whether they want to or not."""
    root = logging.getLogger()
    return {
        "directory": os.getcwd(),
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "logging": (root.level, root.handlers[:], logging.root.manager.disable),
        "signals": [signal.getsignal(each) for each in _SIGNALS],
        "hooks": (sys.excepthook, sys.unraisablehook),
    }
