"""How many clients the process's file descriptors are enough for."""

from __future__ import annotations

import logging
import resource

import pytest

from fleet.config import Config
from web.process import file_limits
from web.process.file_limits import most_clients, raised, room

ENOUGH = [
    # descriptors, servers, clients
    (1_048_576, 10, 349_413),
    (65_536, 4, 21_749),
    (20_000, 1, 6_578),
    (1_024, 1, 253),
    (1_024, 0, 256),
    (1_024, 20, 202),
    (1_024, 5_000, 1),
    (256, 1, 40),
    (0, 0, 1),
]


@pytest.mark.parametrize(("files", "servers", "clients"), ENOUGH)
def test_room(files: int, servers: int, clients: int) -> None:
    assert room(files, servers) == clients


@pytest.mark.parametrize("servers", [0, 1, 7, 30])
def test_more_descriptors_are_never_room_for_fewer_and_never_too_many(servers: int) -> None:
    before = 1
    for files in range(800, 20_000, 7):
        clients = room(files, servers)
        assert clients >= before
        assert 3 * clients + servers * 8 <= files - 256 or clients == 1
        before = clients


@pytest.mark.parametrize(("wanted", "let_in", "lines"), [(100, 100, 0), (10_000, 256, 1)])
def test_fewer_clients_than_the_operator_wants_are_announced(
    wanted: int, let_in: int, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_limits, "raised", lambda: 1_024)
    assert most_clients(Config.model_validate({"limits": {"connections": wanted}})) == let_in
    said = [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING]
    assert len(said) == lines
    assert all("1024" in line and "256" in line and "limits.connections" in line for line in said)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_000), hard))
    try:
        assert raised() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
