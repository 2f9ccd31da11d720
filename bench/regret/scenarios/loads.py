"""Scenarios about models that have to be loaded."""

from __future__ import annotations

import random

from bench.regret.demand import Talk
from bench.regret.traffic import Traffic
from bench.regret.world import Server, Setup
from fleet.simulator import ModelFile, Profile, model_file

GB = 10**9
BASE = Profile(
    slots=2,
    tokens_per_second=50.0,
    prefill_per_second=1500.0,
    load_seconds=8.0,
    cold_load_factor=2.0,
    batch_cost=0.1,
    slot_caches=True,
)


def _profile(**more: object) -> Profile:
    return Profile(**{**{each: getattr(BASE, each) for each in Profile.__slots__}, **more})


def _files(many: int, size: int = 5 * GB) -> tuple[ModelFile, ...]:
    return tuple(model_file(f"model-{n}:8b", size) for n in range(many))


def bursts(variant: str) -> Setup:
    """2: three models on two servers that hold one each; bursts, and only every fourth pair is of one model."""
    per_second, traffic = float(variant.split()[0]) / 600.0, Traffic(f"2 {variant}")
    files = _files(3)
    profile = _profile(max_loaded=1, load_seconds=5.0)
    servers = tuple(Server(f"s{n}", profile, files, warm=(files[n].name,)) for n in range(2))
    talks, last = [], files[0]
    for at in traffic.bursts(per_second, 1200.0):
        if traffic.dice.random() >= 0.24:
            last = traffic.dice.choice([each for each in files if each is not last])
        talks.append(traffic.single(at, traffic.demand(last.name, 300, traffic.varied(60, 1.0))))
    return Setup(servers, tuple(talks))


def ping_pong(variant: str) -> Setup:
    """3: half of the requests ask for a context of 8192, half (as all of `/v1`) cannot ask; 70 % load."""
    traffic, files = Traffic("3"), _files(1)
    servers = tuple(Server(f"s{n}", _profile(), files, warm=(files[0].name,)) for n in range(2))
    rate = 0.7 * 4 / (120 * 1.1 / 50.0 + 0.2)
    talks = tuple(
        traffic.single(
            at,
            traffic.demand(
                files[0].name, 300, traffic.varied(120, 1.0), num_ctx=8192 if traffic.dice.random() < 0.5 else None
            ),
        )
        for at in traffic.poisson(rate, 900.0)
    )
    return Setup(servers, talks)


def cold_herd(variant: str) -> Setup:
    """4: a hundred requests in one second for a model that is warm nowhere; most clients leave after 10 s."""
    traffic, files = Traffic("4"), _files(1)
    profile = _profile(load_seconds=30.0, cold_load_factor=1.0, batch_cost=0.0)
    servers = tuple(Server(f"s{n}", profile, files) for n in range(5))
    talks = [
        traffic.single(
            traffic.dice.random(),
            traffic.demand(files[0].name, 100, 97, patience=10.0 if n % 10 else float("inf")),
        )
        for n in range(100)
    ]
    return Setup(servers, tuple(sorted(talks, key=lambda talk: talk.start)))


def many_models(variant: str) -> Setup:
    """10: forty models on ten servers that hold three each; every 30 minutes others are the favourites."""
    traffic, files = Traffic("10"), _files(40)
    profile = _profile(max_loaded=3, vram=24 * GB)
    servers = tuple(Server(f"s{n}", profile, files) for n in range(10))
    names = [file.name for file in files]
    shuffled = random.Random("10 favourites")
    talks: list[Talk] = []
    for epoch in range(3):
        shuffled.shuffle(names)
        since = epoch * 1800.0
        for at in traffic.poisson(0.5, since + 1800.0, since):
            demand = traffic.demand(traffic.zipf(names, 0.9), 300, traffic.varied(150, 1.0))
            talks.append(traffic.single(at, demand))
    return Setup(servers, tuple(talks), settle=300.0)
