"""python -m bench.run [--quick] [--only A,B] [--contenders A,B] [--peer NAME=URL] [--rounds N] [--seconds S]

Exit codes: 0 done; 1 nothing could be measured; 2 wrong usage; 130 interrupted (what was measured is reported).
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import FrameType

from bench import machine
from bench.measure import RUN, Bench, Options, ToolFailed, own_folder
from bench.processes import Crew, cores, say
from bench.proxies.contenders import CONTENDERS, QUICK, Contender, peer
from bench.proxies.install import CACHE
from bench.reporting import report
from bench.scenarios import SCENARIOS, Bed, Scenario
from bench.special import SPECIAL, run_special

NAMES = (*(scenario.name for scenario in SCENARIOS), *SPECIAL)
QUICK_LEAVES_OUT = {"streams_4000", "openai_short_32", "openai_burst_32"}
ENOUGH_FILES = 10_000


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure the fleet against other proxies.")
    parser.add_argument("--quick", action="store_true", help="one short round, fewer scenarios; under 90 seconds")
    parser.add_argument("--only", metavar="A,B", type=_list, help=f"scenarios, of {', '.join(NAMES)}")
    names = ", ".join(contender.name for contender in CONTENDERS)
    parser.add_argument("--contenders", metavar="A,B", type=_list, help=f"of {names}")
    parser.add_argument("--peer", metavar="NAME=URL", action="append", default=[], help="one that runs already")
    parser.add_argument(
        "--server-port", type=int, default=0, help="port of the fake Ollama, for peers to be pointed at"
    )
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--seconds", type=float, help="per measurement of short requests, default 2")
    chosen = parser.parse_args(words)
    _check(parser, chosen.only or [], NAMES)
    _check(parser, chosen.contenders or [], [contender.name for contender in CONTENDERS])
    if chosen.peer and not chosen.server_port:
        parser.error("--peer needs --server-port: the peer must know where the fake Ollama will listen")
    return chosen


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _check(parser: argparse.ArgumentParser, given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")


def options(chosen: argparse.Namespace) -> Options:
    quick = Options(rounds=1, seconds=0.4, warm_up=0.2, steady=1.0, idle_seconds=10.0, quick=True)
    base = quick if chosen.quick else Options()
    rounds, seconds = chosen.rounds or base.rounds, chosen.seconds or base.seconds
    return replace(base, rounds=rounds, seconds=seconds, server_port=chosen.server_port)


def contenders(chosen: argparse.Namespace) -> list[Contender]:
    """Those asked for; else the quick ones or all. Raises ValueError for a peer that is no name=url."""
    names = chosen.contenders or (QUICK if chosen.quick else [contender.name for contender in CONTENDERS])
    return [contender for contender in CONTENDERS if contender.name in names] + [peer(text) for text in chosen.peer]


def scenarios(chosen: argparse.Namespace) -> list[str]:
    return chosen.only or [name for name in NAMES if not (chosen.quick and name in QUICK_LEAVES_OUT)]


def beds(names: Sequence[str], steady: float) -> Iterator[tuple[Bed, list[Scenario]]]:
    """The scenarios by the servers they need, in their order."""
    groups: dict[Bed, list[Scenario]] = {}
    for scenario in SCENARIOS:
        if scenario.name in names:
            groups.setdefault(scenario.servers(steady), []).append(scenario)
    yield from groups.items()


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        say(f"only {hard} open files are allowed, 4,000 streams need {ENOUGH_FILES}: expect failures (ulimit -Hn)")


def measure(bench: Bench, names: Sequence[str]) -> None:
    for bed, group in beds(names, bench.options.steady):
        say(", ".join(scenario.title for scenario in group))
        with Crew(RUN) as bench.crew:
            bench.run_bed(bed, group)
    for name, special in SPECIAL.items():
        if name in names:
            say(special.title)
            run_special(bench, name)


def main(words: Sequence[str]) -> int:
    chosen = parse(words)
    try:
        bench = Bench(Crew(RUN), options(chosen), contenders(chosen))
    except ValueError as wrong:
        say(str(wrong))
        return 2
    if not (CACHE / "load").exists():
        say("the C programs are not built: run `make bench`")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    raise_file_limit()
    if cores()[0] == cores()[1]:
        say("this machine has ONE usable core: everything shares it, the ratios are compressed")
    try:
        with own_folder():
            return run(bench, scenarios(chosen))
    except BlockingIOError:
        say("another run is under way")
        return 2


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(bench: Bench, names: Sequence[str]) -> int:
    """Measure, then report, whatever came between."""
    about, began, code = machine.describe(), time.monotonic(), 130
    try:
        measure(bench, names)
        code = 0 if bench.results.samples else 1
    except KeyboardInterrupt:
        say("interrupted")
    except ToolFailed as wrong:
        say(str(wrong))
        code = 1
    finally:
        rounds = f"{bench.options.rounds}{' (--quick: a look, not a measurement)' if bench.options.quick else ''}"
        took = f"{time.monotonic() - began:.0f} s{', interrupted' if code == 130 else ''}"
        page = report.write(bench.results, about, {"rounds": rounds, "took": took})
    sys.stdout.write(page.read_text())
    say(f"\nwritten: {page} and latest.json")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
