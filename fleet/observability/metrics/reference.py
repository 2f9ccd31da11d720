"""The tables of docs/metrics.md, made from the tables of metrics and of failures so that they cannot go stale."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from fleet.breakers.failure_classes import CLASSES, GROUNDS, FailureClass
from fleet.breakers.outcomes import Signal
from fleet.observability.metrics.definitions import BUCKETS, METRICS, Metric
from fleet.protocol.refusals import Ground

_MARKS: Final = "<!-- {}: begin (generated, do not edit) -->", "<!-- {}: end -->"
_HEAD: Final = "| metric | type | labels | what it says |\n|---|---|---|---|\n"
_FAMILIES: Final = {"ollama": "The monitoring stack's reference", "fleet": "Our own"}


_FAILURES: Final = "| outcome | statistics | alerts | breaker |\n|---|---|---|---|\n"
_PROOFS: Final = "| what a refusal is about | by itself | when another server then answered |\n|---|---|---|\n"
_ABOUT: Final = {
    Ground.CLIENT: "the request itself, in the API's own words",
    Ground.MODEL: "a model that the server does not have",
    Ground.ROUTE: "an endpoint that it is too old for",
    Ground.STANDING: "the fleet, which it does not let in",
    Ground.BUSY: "having enough to do",
    Ground.GATEWAY: "what stands before it cannot reach it",
    Ground.MEMORY: "memory that the model does not fit into",
    Ground.CRASH: "its model runner, which died",
    Ground.SIZE: "the size of the request",
    Ground.DOUBT: "nobody can tell",
}


def refreshed(page: str) -> str:
    """The page with fresh tables between the marks. Raises ValueError if it has none."""
    return _between("failures", failures(), _between("metrics", tables(), page))


def _between(name: str, text: str, page: str) -> str:
    begin, end = (mark.format(name) for mark in _MARKS)
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError("the page has no marks to put the tables between")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def failures() -> str:
    """What counts as failed, and what a refusal proves."""
    proofs = (f"| {_ABOUT[on]} | {_word(alone)} | {_word(convicted)} |\n" for on, (alone, convicted) in GROUNDS.items())
    return f"{_FAILURES}{''.join(map(_failure, CLASSES))}\n{_PROOFS}{''.join(proofs)}"


def _word(learned: Signal) -> str:
    return learned.value.replace("_", " ")


def _failure(row: FailureClass) -> str:
    name = f"`{row.outcome}`" if " " not in row.outcome else row.outcome
    breaker = _word(row.breaker) if isinstance(row.breaker, Signal) else "see below" if row.breaker else ""
    return f"| {name} | {'error' * row.statistics} | {'failure' * row.alerts} | {breaker} |\n"


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
