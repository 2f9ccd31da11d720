"""What a server's actor makes of lists of loaded models that come late, or not at all."""

from __future__ import annotations

from dataclasses import replace

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import Probed, Unloads
from fleet.common.ids import ModelName
from tests.kit.fleets.fleet import Fleet, open_fleet

RARE = {"interval": 1000.0, "jitter": 0.0}


def shown(fleet: Fleet, began: float) -> Probed:
    """A round that shows m as loaded."""
    rows = list(fleet.cell("a").state.models.values())
    return Probed("", rows, rows[:1], "1", 0.01, began=began)


def one_model(fleet: Fleet) -> ModelName:
    model: ModelName = next(iter(fleet.cell("a").state.models))
    return model


async def test_a_list_from_before_a_model_was_unloaded_does_not_bring_it_back(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=RARE) as fleet:
        await trio.sleep(5.0)
        cell, model = fleet.cell("a"), one_model(fleet)
        cell.mailbox.cast(Unloads(model))
        cell.mailbox.cast(shown(fleet, trio.current_time() - 1.0))
        await wait_all_tasks_blocked()
        assert model not in cell.state.resident
        await trio.sleep(1.0)
        cell.mailbox.cast(shown(fleet, trio.current_time()))
        await wait_all_tasks_blocked()
        assert model in cell.state.resident


async def test_a_model_that_was_missed_is_looked_for_again(autojump_clock: MockClock) -> None:
    """When what is loaded could not be read, and when an interval has passed."""
    async with open_fleet("a", health={"interval": 10.0, "jitter": 0.0}) as fleet:
        await trio.sleep(5.0)
        cell, model = fleet.cell("a"), one_model(fleet)
        cell.look_for(model)
        assert cell.probe_now.is_set()
        await trio.sleep(1.0)
        cell.look_for(model)
        assert not cell.probe_now.is_set()
        cell.mailbox.cast(replace(shown(fleet, 0.0), resident=None))
        await wait_all_tasks_blocked()
        cell.look_for(model)
        assert cell.probe_now.is_set()
        await trio.sleep(15.0)
        cell.look_for(model)
        assert cell.probe_now.is_set()
