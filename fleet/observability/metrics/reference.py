"""The tables of docs/metrics.md, made from the table of metrics so that they cannot go stale."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from fleet.observability.metrics.definitions import BUCKETS, METRICS, Metric

BEGIN: Final = "<!-- metrics: begin (generated, do not edit) -->"
END: Final = "<!-- metrics: end -->"
_HEAD: Final = "| metric | type | labels | what it says |\n|---|---|---|---|\n"
_FAMILIES: Final = {"ollama": "The monitoring stack's reference", "fleet": "Our own"}


def refreshed(page: str) -> str:
    """The page with fresh tables between the marks. Raises ValueError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page has no marks to put the tables between")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    """One table per family of names, and one of buckets."""
    grouped = groupby(METRICS, lambda metric: metric.name.partition("_")[0])
    shown = (f"### {_FAMILIES[name]}\n\n{_HEAD}{''.join(map(_row, metrics))}" for name, metrics in grouped)
    return "\n".join([*shown, _buckets()])


def _row(metric: Metric) -> str:
    labels = " ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"


def _buckets() -> str:
    rows = (f"| `{name}` | {' '.join(f'{bound:g}' for bound in bounds)} |\n" for name, bounds in BUCKETS.items())
    return f"### Buckets\n\n| histogram | upper bounds in seconds, and infinity |\n|---|---|\n{''.join(rows)}"
