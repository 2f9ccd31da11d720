"""`python -m bench.regret [--scenario N ...] [--policy NAME ...] [--out FOLDER] [--processes N]`"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.regret.routers.policies import POLICIES, wanted
from bench.regret.runs import Cell, Result, cells, run
from bench.regret.scenarios.catalogue import SCENARIOS
from bench.regret.table import as_json, markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, print the table, and write it if a folder is named. 0: all ran."""
    options = _parse(arguments)
    began = time.monotonic()
    results = run_all(cells(options.scenario, wanted(options.policy)), options.processes)
    table = markdown(results)
    sys.stdout.write(table)
    sys.stderr.write(f"{len(results)} runs in {time.monotonic() - began:.0f} s\n")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "latest.md").write_text(table)
        (options.out / "latest.json").write_text(as_json(results))
    return 0


def run_all(wanted: Sequence[Cell], processes: int) -> list[Result]:
    """Each in a process that is free; the order of the results is that of the cells."""
    if processes <= 1 or len(wanted) == 1:
        return [run(cell) for cell in wanted]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(run, wanted, chunksize=1)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.regret", description="Routing policies against an oracle.")
    parser.add_argument("--scenario", type=int, action="append", choices=sorted(SCENARIOS), help="one; may be repeated")
    parser.add_argument("--policy", action="append", choices=[*POLICIES, "oracle"], default=[], help="may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for latest.md and latest.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
