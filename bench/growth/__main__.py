"""`python -m bench.growth [WORD]`: the table, or those of its rows that have WORD in their name."""

from __future__ import annotations

import sys

from bench.growth.cases import CASES
from bench.growth.measure import MOST, grown


def main(word: str = "") -> int:
    """Print a row per case; 1 if one of them grows faster than in proportion."""
    sys.stdout.write("| what is read | size | ms | ms, doubled | times |\n|---|---|---|---|---|\n")
    failed = 0
    for case in CASES:
        if word not in case.name:
            continue
        growth = grown(case)
        failed += growth.ratio > MOST
        figures = f"{growth.once * 1e3:.3f} | {growth.doubled * 1e3:.3f} | {growth.ratio:.2f}"
        sys.stdout.write(f"| {growth.name} | {_size(growth.size)} | {figures} |\n")
        sys.stdout.flush()
    return 1 if failed else 0


def _size(size: int) -> str:
    return f"{size // 2**20} Mi" if size >= 2**20 else f"{size // 1024} Ki" if size >= 1024 else str(size)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
