"""Crashed actors are started again, but not for ever."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from actors.kit.mailbox import Mailbox
from actors.kit.supervisor import RestartBudget, RestartLimit, RestartPolicy, keep_up, supervise


class Body:
    """Crashes so many times, then returns; notes when it was started."""

    def __init__(self, crashes: int, lives: float = 0.0) -> None:
        self.crashes = crashes
        self.lives = lives
        self.starts: list[float] = []

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        await trio.sleep(self.lives)
        if len(self.starts) <= self.crashes:
            raise ValueError(len(self.starts))


@pytest.fixture
def crashes(expected_errors: list[str]) -> None:
    """This test's actors crash, and it knows."""
    expected_errors.append("crashed")


async def test_a_body_that_returns_is_not_started_again(autojump_clock: MockClock) -> None:
    body = Body(0)
    await supervise("test", body.run)
    assert len(body.starts) == 1


@pytest.mark.usefixtures("crashes")
async def test_a_crash_is_logged_and_the_body_starts_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    body = Body(2)
    await supervise("test", body.run, RestartPolicy(delay=0.5))
    assert body.starts == [0.0, 0.5, 1.5]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["actor test crashed"] * 2
    assert all(record.exc_info for record in errors)


@pytest.mark.usefixtures("crashes")
async def test_the_delay_doubles_up_to_its_limit(autojump_clock: MockClock) -> None:
    body = Body(6)
    await supervise("test", body.run, RestartPolicy(restarts=6, delay=1.0, max_delay=4.0))
    assert body.starts == [0.0, 1.0, 3.0, 7.0, 11.0, 15.0, 19.0]


@pytest.mark.usefixtures("crashes")
async def test_it_gives_up_upwards_when_the_budget_is_used_up(autojump_clock: MockClock) -> None:
    body = Body(100)
    with pytest.raises(RestartLimit, match="test") as caught:
        await supervise("test", body.run, RestartPolicy(restarts=3))
    assert len(body.starts) == 4
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.usefixtures("crashes")
async def test_old_crashes_are_forgiven(autojump_clock: MockClock) -> None:
    body = Body(50, lives=31.0)
    await supervise("test", body.run, RestartPolicy(restarts=2, within=60.0))
    assert len(body.starts) == 51


@pytest.mark.usefixtures("crashes")
async def test_no_restarts_at_all(autojump_clock: MockClock) -> None:
    body = Body(1)
    with pytest.raises(RestartLimit):
        await supervise("test", body.run, RestartPolicy(restarts=0))
    assert len(body.starts) == 1


async def test_cancellation_is_no_crash(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    body = Body(0, lives=1000.0)
    with trio.move_on_after(5) as scope:
        await supervise("test", body.run)
    assert scope.cancelled_caught
    assert not caplog.records


@pytest.mark.usefixtures("crashes")
async def test_cancellation_between_two_lives_ends_it(autojump_clock: MockClock) -> None:
    body = Body(100)
    with trio.move_on_after(5) as scope:
        await supervise("test", body.run, RestartPolicy(delay=60.0, max_delay=60.0))
    assert scope.cancelled_caught
    assert len(body.starts) == 1


@pytest.mark.usefixtures("crashes")
async def test_a_crash_inside_a_nursery_is_a_crash(autojump_clock: MockClock) -> None:
    starts = 0

    async def body() -> None:
        nonlocal starts
        starts += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Body(1 if starts == 1 else 0).run)

    await supervise("test", body)
    assert starts == 2


async def test_an_error_that_meets_cancellation_passes(autojump_clock: MockClock) -> None:
    starts = 0

    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("on the way out")

    async def body() -> None:
        nonlocal starts
        starts += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(stubborn)

    with pytest.RaisesGroup(OSError), trio.move_on_after(1):
        await supervise("test", body)
    assert starts == 1


async def test_an_interrupt_is_not_swallowed() -> None:
    async def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await supervise("test", body)


@pytest.mark.usefixtures("crashes")
async def test_one_actor_that_gives_up_does_not_disturb_a_sibling_that_its_parent_keeps(
    autojump_clock: MockClock,
) -> None:
    done: list[str] = []

    async def keep(name: str, body: Body) -> None:
        try:
            await supervise(name, body.run, RestartPolicy(restarts=1))
            done.append(name)
        except RestartLimit:
            done.append(f"{name} gave up")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, "bad", Body(9))
        nursery.start_soon(keep, "good", Body(0, lives=10.0))
    assert done == ["bad gave up", "good"]


@pytest.mark.usefixtures("crashes")
async def test_messages_sent_during_a_restart_are_handled_after_it(autojump_clock: MockClock) -> None:
    mailbox = Mailbox[str]("test")
    handled: list[tuple[float, str]] = []

    async def body() -> None:
        while (message := await mailbox.receive()) != "stop":
            if message == "crash":
                raise ValueError(message)
            handled.append((trio.current_time(), message))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, "test", body, RestartPolicy(delay=2.0, max_delay=2.0))
        mailbox.cast("crash")
        await trio.sleep(1)
        for message in ("first", "second", "stop"):
            mailbox.cast(message)
    assert handled == [(2.0, "first"), (2.0, "second")]


@pytest.mark.parametrize(
    ("crashes", "waits"),
    [
        ([0.0, 1.0, 2.0], [0.1, 0.2, None]),
        ([0.0, 11.0, 22.0], [0.1, 0.1, 0.1]),
        ([0.0, 5.0, 10.0, 10.0], [0.1, 0.2, 0.2, None]),
    ],
)
def test_the_budget_is_a_sliding_window(crashes: list[float], waits: list[float | None]) -> None:
    budget = RestartBudget(RestartPolicy(restarts=2, within=10.0, delay=0.1))
    assert [budget.spend(now) for now in crashes] == waits


async def test_a_body_that_returned_on_purpose_is_not_run_again(autojump_clock: MockClock) -> None:
    """It was, every 30 s."""
    begun: list[float] = []

    async def body() -> None:
        begun.append(trio.current_time())
        await trio.lowlevel.checkpoint()

    with trio.move_on_after(100.0) as scope:
        await keep_up("test", body)
    assert begun == [0.0]
    assert not scope.cancelled_caught
