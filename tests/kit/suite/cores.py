"""The suite on all cores: who runs beside whom, and in which order.

pytest-xdist hands out files. Tests marked `alone` measure real time: no test of another worker of the run is under way
meanwhile, and the time of waiting for that is not theirs. `tests/conftest.py` takes the hooks from here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from xdist.workermanage import WorkerController

_FOLDER = "machine_folder"


class _Machine:
    """Shared by the workers of one run: one test alone, or others side by side.

    The door keeps it fair: while one waits to be alone, nobody else comes in.
    """

    def __init__(self, folder: Path) -> None:
        self._door = (folder / "door").open("w")
        self._room = (folder / "room").open("w")

    @contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Waits without a limit: whoever is inside has a timeout of its own."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        self._door.close()
        self._room.close()


_MACHINE = pytest.StashKey[_Machine]()
_SHARED = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than there are cores for this process, which may be fewer than the machine has.

    A quarter of the suite's time is waiting: for clocks, for other processes. With one more worker no core idles then.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1


def pytest_configure(config: pytest.Config) -> None:
    workerinput: dict[str, str] | None = getattr(config, "workerinput", None)
    if workerinput is None:
        config.stash[_SHARED] = tempfile.mkdtemp(prefix="tests-of-the-fleet-")
        config.add_cleanup(lambda: shutil.rmtree(config.stash[_SHARED], ignore_errors=True))
    else:
        config.stash[_MACHINE] = machine = _Machine(Path(workerinput[_FOLDER]))
        config.add_cleanup(machine.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """In the process that hands the files out, for each worker before it starts."""
    node.workerinput[_FOLDER] = node.config.stash[_SHARED]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no core ends long before the other; those with tests alone last."""
    slow, alone = ({item.path for item in items if item.get_closest_marker(marker)} for marker in ("slow", "alone"))
    items.sort(key=lambda item: 2 if item.path in alone else 0 if item.path in slow else 1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of pytest-timeout, which would count the waiting."""
    machine = item.config.stash.get(_MACHINE, None)
    alone = item.get_closest_marker("alone") is not None
    room: AbstractContextManager[None] = machine.taken(alone=alone) if machine else nullcontext()
    with room:
        return (yield)
