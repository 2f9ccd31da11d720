"""Scenarios about chats: what is cached where, and who waits for whom."""

from __future__ import annotations

from bench.regret.demand import Talk
from bench.regret.traffic import Traffic
from bench.regret.world import Server, Setup
from fleet.simulator import Profile, model_file

GB = 10**9
CHAT = model_file("chat:8b", 5 * GB)
LOADS = (40, 60, 80, 95)
WARM_OR_WAIT = tuple(f"{load} % K={slots}" for load in LOADS for slots in ("2", "4", "8", "auto"))


def _server(name: str, *, slots: int = 4, speed: float = 50.0) -> Server:
    profile = Profile(
        slots=slots,
        tokens_per_second=speed,
        prefill_per_second=speed * 25,
        load_seconds=8.0,
        batch_cost=0.1,
        slot_caches=True,
        parked_tokens=30_000,
    )
    return Server(name, profile, (CHAT,), warm=(CHAT.name,))


def long_chats(variant: str) -> Setup:
    """5: 200 chats of ten turns that grow from 1,200 to 12,000 tokens, on eight equal servers."""
    traffic = Traffic("5")
    talks = tuple(
        traffic.chat(at, CHAT.name, 10, first=1200, grows=1200, answer=150, think=20.0)
        for at in sorted(traffic.dice.uniform(0.0, 900.0) for _ in range(200))
    )
    return Setup(tuple(_server(f"s{n}") for n in range(8)), talks)


def hot_prefix(variant: str) -> Setup:
    """6: nine of ten requests begin with the same 8,000 tokens, on four servers."""
    traffic, system = Traffic("6"), "You are a careful assistant. " * (8000 * 4 // 29)
    talks = []
    for at in traffic.poisson(1.6, 900.0):
        shares = traffic.dice.random() < 0.9
        first, beginning = (8200, system) if shares else (400, "")
        chat = traffic.chat(at, CHAT.name, 1, first=first, grows=0, answer=120, think=1.0, system=beginning)
        talks.append(chat)
    return Setup(tuple(_server(f"s{n}") for n in range(4)), tuple(talks))


def bulk(variant: str) -> Setup:
    """8: one client asks 500 times at once with 4,000 tokens each, nine others chat."""
    traffic = Traffic("8")
    talks = [
        traffic.single(60.0 + n * 0.01, traffic.demand(CHAT.name, 4000, traffic.varied(100, 1.0), client="bulk"))
        for n in range(500)
    ]
    for who in range(9):
        now = traffic.dice.uniform(0.0, 30.0)
        while now < 900.0:
            talks.append(
                traffic.chat(now, CHAT.name, 5, first=300, grows=250, answer=120, think=8.0, client=f"person-{who}")
            )
            now += traffic.dice.uniform(60.0, 120.0)
    servers = tuple(_server(f"s{n}", slots=2) for n in range(4))
    return Setup(servers, tuple(sorted(talks, key=lambda talk: talk.start)), beside=frozenset({"bulk"}))


def warm_or_wait(variant: str) -> Setup:
    """11: three servers of 60, 30 and 15 tokens/s, two slots and two models each; four models, chats of six turns."""
    load, said = variant.split(" % K=")
    traffic = Traffic(f"11 {load}")
    files = tuple(model_file(f"{name}:8b", 5 * GB) for name in ("amber", "birch", "cedar", "daisy"))
    servers = tuple(
        Server(
            f"gpu-{speed}",
            Profile(
                slots=2,
                max_loaded=2,
                tokens_per_second=float(speed),
                prefill_per_second=speed * 25.0,
                load_seconds=15.0,
                cold_load_factor=1.5,
                batch_cost=0.1,
                slot_caches=True,
                parked_tokens=20_000,
            ),
            files,
            slots=None if said == "auto" else int(said),
        )
        for speed in (60, 30, 15)
    )
    seconds = [120 * 1.1 / speed + 300 / (speed * 25.0) for speed in (60, 30, 15)]
    rate = int(load) / 100 * sum(2 / each for each in seconds) / 6
    names = [file.name for file in files]
    talks: list[Talk] = [
        traffic.chat(at, traffic.zipf(names, 1.0), 6, first=400, grows=300, answer=120, think=10.0)
        for at in traffic.poisson(rate, 150 / rate)
    ]
    return Setup(servers, tuple(talks), settle=90.0)
