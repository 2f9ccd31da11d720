"""Scenarios about servers that look well and are not, and about requests that hurt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.regret.machine import Mischief
from bench.regret.traffic import Traffic
from bench.regret.world import Server, Setup, World
from fleet.simulator import Profile, model_file

GB = 10**9
CHAT, CODE = model_file("chat:8b", 5 * GB), model_file("code:8b", 5 * GB)
BASE = Profile(
    slots=2,
    tokens_per_second=50.0,
    prefill_per_second=1500.0,
    load_seconds=5.0,
    batch_cost=0.1,
    slot_caches=True,
    poison="POISON",
)


def grey(variant: str) -> Setup:
    """9: six servers; one after the other refuses at once, cuts answers off, decodes at a tenth, cannot load."""
    traffic = Traffic("9")
    profile = replace(BASE, max_loaded=1)
    servers = tuple(Server(f"s{n}", profile, (CHAT, CODE), warm=((CHAT, CODE)[n % 2].name,)) for n in range(6))
    talks = tuple(
        traffic.single(
            at,
            traffic.demand(CHAT.name if traffic.dice.random() < 0.5 else CODE.name, 300, traffic.varied(120, 1.0)),
        )
        for at in traffic.poisson(1.5, 1000.0)
    )
    crippled = replace(profile, tokens_per_second=5.0, prefill_per_second=150.0)
    happenings = (
        (100.0, mischief("s0", Mischief.REFUSES)),
        (250.0, mischief("s0", Mischief.NONE)),
        (300.0, mischief("s1", Mischief.CUTS_OFF)),
        (450.0, mischief("s1", Mischief.NONE)),
        (500.0, becomes("s2", crippled)),
        (650.0, becomes("s2", profile)),
        (700.0, becomes("s3", replace(profile, failing_loads=0.5))),
        (701.0, _loses_its_models("s3")),
        (850.0, becomes("s3", profile)),
    )
    return Setup(servers, talks, happenings=happenings)


def poison_and_busy(variant: str) -> Setup:
    """12: two requests that crash every runner they meet; then 16 at once for a cold model whose queue takes two."""
    traffic = Traffic("12")
    profile = replace(BASE, max_queue=2)
    servers = tuple(Server(f"s{n}", profile, (CHAT, CODE), warm=(CHAT.name,)) for n in range(2))
    talks = [
        traffic.single(at, traffic.demand(CHAT.name, 200, traffic.varied(80, 1.0)))
        for at in traffic.poisson(0.9, 600.0)
    ]
    for at in (100.0, 102.0):
        demand = traffic.demand(CHAT.name, 200, 80, client="poisoner")
        talks.append(traffic.single(at, replace(demand, prompt="POISON" + demand.prompt)))
    talks += [traffic.single(300.0 + n * 0.005, traffic.demand(CODE.name, 200, 60)) for n in range(16)]
    return Setup(servers, tuple(sorted(talks, key=lambda talk: talk.start)), beside=frozenset({"poisoner"}))


def mischief(server: str, kind: Mischief) -> Callable[[World], None]:
    """From then on it fails in that way."""

    def begin(world: World) -> None:
        world.machines[server].mischief = kind

    return begin


def becomes(server: str, profile: Profile) -> Callable[[World], None]:
    """From then on it is that strong."""

    def change(world: World) -> None:
        world.machines[server].sim.profile = profile

    return change


def _loses_its_models(server: str) -> Callable[[World], None]:
    def lose(world: World) -> None:
        machine = world.machines[server]
        for file in machine.files.values():
            machine.sim.unload(file, world.now)

    return lose
