"""What is not a rate: memory per stream, the time of a start, the cost of being idle and of routing decisions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from bench.disturbance import admin, dashboards
from bench.measure import RUN, Bench, NotMeasured
from bench.processes import Crew, cores, pinned, say
from bench.proxies.contenders import Contender
from bench.proxies.install import CACHE, ROOT
from bench.scenarios import MEMORY, REQUESTS, SETTLE, Bed, Streams

Figures = Mapping[str, float]  # by unit

SETTLED = 3.0  # seconds a fleet gets to know its servers before its idle cost counts


def memory(bench: Bench, contender: Contender) -> Figures:
    """KiB that each of many streams held open adds to what the warm process had. Raises NotMeasured."""
    load, steady = MEMORY.load, bench.options.steady
    assert isinstance(load, Streams)
    urls = bench.servers(load.bed(steady))
    running = bench.start(contender, urls)
    if not running.process:
        raise NotMeasured("not a process of this run")
    warm = ["closed", running.target, bench.request("short", contender), "32", "0.5"]
    bench.load(warm, "short")
    before = running.process.rss_kib()
    words = [str(CACHE / "load"), *bench.words(MEMORY, running), "-e", REQUESTS[MEMORY.request].end]
    generator = bench.crew.start("load", words, cores()[1])
    time.sleep(load.opening() + SETTLE + steady / 2)
    growth = running.process.rss_kib() - before
    generator.popen.wait()
    if failed := load.count - json.loads(generator.last_words())["completed"]:
        raise NotMeasured(f"{failed} streams failed")
    return {"KiB": growth / load.count}


def cold_start(bench: Bench, contender: Contender) -> Figures:
    """Milliseconds from the start of the process to the end of the first answer. Raises NotMeasured."""
    urls = bench.servers(Bed(addresses=10))
    before = time.monotonic()
    running = bench.start(contender, urls)
    took = time.monotonic() - before
    if not running.process:
        raise NotMeasured("not a process of this run")
    return {"ms": took * 1e3}


def idle(bench: Bench, contender: Contender) -> Figures:
    """Percent of a core that a contender with 200 servers and no client uses. Raises NotMeasured."""
    urls = bench.servers(Bed(addresses=200))
    running = bench.start(contender, urls)
    if not running.process:
        raise NotMeasured("not a process of this run")
    time.sleep(SETTLED)
    before = running.process.cpu_seconds()
    time.sleep(bench.options.idle_seconds)
    used = running.process.cpu_seconds() - before
    return {"% of a core": 100 * used / bench.options.idle_seconds}


def routing(bench: Bench, contender: Contender) -> Figures:
    """The dispatcher's own benchmark, in a process of its own. Raises NotMeasured."""
    command = pinned(cores()[0], [sys.executable, "-m", "bench.parts.dispatcher", "--json"])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"bench.parts.dispatcher failed: {done.stderr.strip().splitlines()[-1]}")
    told = json.loads(done.stdout)
    return {"us": told["fleet"][-1]["decision"], "5,000 waiting against 100": told["flatness"]}


def admin_calls(bench: Bench, contender: Contender) -> Figures:
    """What the slowest requests lose while somebody uses the admin API. Raises NotMeasured."""
    urls = bench.servers(admin.STREAMS.servers(bench.options.steady))
    return admin.measure(bench, bench.start(contender, urls))


def dashboard_clients(bench: Bench, contender: Contender) -> Figures:
    """What the slowest requests lose while a hundred watch, and what it costs. Raises NotMeasured."""
    urls = bench.servers(admin.STREAMS.servers(bench.options.steady))
    return dashboards.measure(bench, bench.start(contender, urls))


@dataclass(frozen=True)
class Special:
    """A measurement, who takes part (the first one also in quick runs), and how often it is made."""

    title: str
    measurement: Callable[[Bench, Contender], Figures]
    contenders: tuple[str, ...] = ("fleet",)
    rounds: int = 1


SPECIAL = {
    "memory": Special(MEMORY.title, memory, ("fleet", "nginx", "olla")),
    "cold_start": Special(
        "process start to first request served, 10 servers",
        cold_start,
        ("fleet", "nginx", "naive", "litellm", "olla"),
        rounds=3,
    ),
    "idle": Special("CPU at rest, 200 servers; nobody watches", idle),
    "admin": Special("admin calls beside live streams and short answers", admin_calls),
    "dashboards": Special("100 live clients beside live streams and short answers", dashboard_clients),
    "routing": Special("routing decisions, 200 servers x 50 models, 5,000 queued", routing, rounds=3),
}


def run_special(bench: Bench, name: str) -> None:
    special = SPECIAL[name]
    wanted = special.contenders[: 1 if bench.options.quick else None]
    for contender in (one for one in bench.contenders if one.name in wanted):
        with suppress(NotMeasured):
            for _ in range(min(special.rounds, bench.options.rounds)):
                _measure(bench, name, contender)


def _measure(bench: Bench, name: str, contender: Contender) -> None:
    try:
        with Crew(RUN) as crew:
            figures = SPECIAL[name].measurement(replace(bench, crew=crew), contender)
    except NotMeasured as reason:
        bench.results.skip(name, contender.name, str(reason))
        say(f"  {name:16} {contender.name}: not measured: {reason}")
        raise
    bench.results.add(name, contender.name, figures)
    say(f"  {name:16} {contender.name:12} {'   '.join(f'{value:.1f} {unit}' for unit, value in figures.items())}")
