"""Scenarios about servers of unequal strength, and slots that nobody tells of."""

from __future__ import annotations

from dataclasses import replace

from bench.regret.traffic import Traffic
from bench.regret.world import Server, Setup, World
from fleet.simulator import ForeignClient, Profile, RunnerOptions, Work, model_file

CHAT = model_file("chat:8b", 5_000_000_000)


def unequal(variant: str) -> Setup:
    """1: one model, two fast servers and six a quarter as fast, one slot each; sizes vary (C^2 = 4)."""
    load, traffic = float(variant.split()[1]), Traffic(f"1 {variant}")
    strengths = {"fast": (2, 100.0), "slow": (6, 25.0)}
    servers = tuple(
        Server(
            f"{name}-{n}",
            Profile(slots=1, tokens_per_second=speed, prefill_per_second=speed * 40, jitter=0.0),
            (CHAT,),
            slots=1,
            warm=(CHAT.name,),
        )
        for name, (many, speed) in strengths.items()
        for n in range(many)
    )
    seconds = 200 / 100.0 + 50 / 4000.0
    rate = load * (2 / seconds + 6 / (4 * seconds))
    talks = tuple(
        traffic.single(at, traffic.demand(CHAT.name, 50, traffic.varied(200, 4.0)))
        for at in traffic.poisson(rate, 1800 / rate)
    )
    return Setup(servers, talks)


def hidden(variant: str) -> Setup:
    """7: 1, 1, 4 and 8 slots that nobody tells of; after 10 minutes one restarts with 1 for 4, later a guest comes."""
    traffic = Traffic("7")
    servers = tuple(
        Server(
            f"s{n}-{slots}",
            Profile(slots=slots, tokens_per_second=40.0, prefill_per_second=2000.0, load_seconds=5.0, batch_cost=0.05),
            (CHAT,),
            slots=None,
            warm=(CHAT.name,),
        )
        for n, slots in enumerate((1, 1, 4, 8))
    )
    rate = 0.5 * 14 / 7.0
    talks = tuple(
        traffic.single(at, traffic.demand(CHAT.name, 400, traffic.varied(200, 1.0)))
        for at in traffic.poisson(rate, 1800.0)
    )
    return Setup(servers, talks, happenings=((600.0, _restart), (1200.0, _guest)))


def _restart(world: World) -> None:
    machine = world.machines["s2-4"]
    machine.sim.restart(world.now, replace(machine.sim.profile, slots=1))


def _guest(world: World) -> None:
    sim = world.machines["s3-8"].sim
    work = Work(CHAT, RunnerOptions(sim.profile.num_ctx), 1e9, "a guest's", 400, ("",) * 400)
    ForeignClient(sim, work, streams=2, since=world.now)
