"""What must have happened before a row is asked."""

from __future__ import annotations

from tests.web.admin.contract.here import DEEP, Here


async def talked(here: Here) -> None:
    await here.talk(3)


async def streamed(here: Here) -> None:
    await here.talk(2, stream=True)


async def failed(here: Here) -> None:
    await here.fail()


async def mixed(here: Here) -> None:
    await here.talk(3)
    await here.fail()


async def half_open(here: Here) -> None:
    await loaded(here)
    for server in "ab":
        await here.ask("POST", f"/circuit-breakers/{server}/{DEEP}/half-open")


async def forced(here: Here) -> None:
    await here.ask("POST", f"/circuit-breakers/a/{DEEP}/open")


async def probed(here: Here) -> None:
    here.tell()


async def banned(here: Here) -> None:
    await here.ask("POST", "/bans", {"serverId": "a", "model": DEEP, "reason": "lies", "durationMs": 60_000})
    await here.ask("POST", "/bans", {"serverId": "b", "model": DEEP})
    await here.ask("POST", "/bans", {"serverId": "a", "model": "llama3:8b"})


async def paused(here: Here) -> None:
    await here.ask("POST", "/queue/pause")


async def drained(here: Here) -> None:
    await here.ask("POST", "/servers/a/drain", {"reason": "new disk"})


async def loaded(here: Here) -> None:
    """The model is in memory of one server, and the fleet has seen that it is."""
    await here.talk(model=DEEP, tokens=1)
    await here.ask("POST", "/health-check")


async def loading(here: Here) -> None:
    for sim in here.fleet.sims.values():
        sim.host.faults.set("hang-before-headers")
    await here.ask("POST", f"/models/{DEEP}/warmup", {"servers": ["a"]})


async def spare(here: Here) -> None:
    """Server b has lost the deep model."""
    await here.ask("DELETE", f"/servers/b/models/{DEEP}")
