"""Reads PromQL as far as its tests need: the metrics and labels that an expression names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from fleet.observability.metrics.definitions import METRICS

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<span>\[[^\]]*\])
      | (?P<number>[0-9][0-9.]*(?:e[-+]?[0-9]+)?(?:[smhdwy]\b)?)
      | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
      | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){},])
    """,
    re.VERBOSE,
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus adds to whatever it scrapes."""


@dataclass
class Named:
    """What an expression names: metrics with the labels of their matchers, and labels that it groups by."""

    metrics: list[tuple[str, set[str]]] = field(default_factory=list)
    groupings: set[str] = field(default_factory=set)


def named(expr: str) -> Named:
    """Everything that is named. Raises ValueError for what is no PromQL at all."""
    found, tokens = Named(), _tokens(expr)
    at = 0
    while at < len(tokens):
        kind, word = tokens[at]
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "word" or word in _KEYWORDS:
            continue
        if word in _GROUPING:
            end = _closing(tokens, at, "(", ")") if after == "(" else at
            found.groupings |= {text for sort, text in tokens[at:end] if sort == "word"}
            at = end
        elif after == "{":
            end = _closing(tokens, at, "{", "}")
            found.metrics.append((word, {text for sort, text in tokens[at:end] if sort == "word"}))
            at = end
        elif after != "(" and tokens[at : at + 1] not in ([("word", "by")], [("word", "without")]):
            found.metrics.append((word, set()))
    return found


def problems(expr: str, recorded: Collection[str] = ()) -> Iterator[str]:
    """What an expression names that the fleet does not expose. `recorded`: names that rules record."""
    labels = exposed()
    found = named(expr)
    if not found.metrics:
        yield f"names no metric: {expr}"
    there: set[str] = set()
    for metric, matched in found.metrics:
        if metric in recorded:
            there |= {"server", "model"}
        elif metric not in labels:
            yield f"{metric} is not exposed"
        else:
            there |= labels[metric]
            yield from (f"{metric} has no label {label}" for label in matched - labels[metric])
    yield from (f"no metric of it has the label {label}: {expr}" for label in found.groupings - there - _SCRAPED)


def exposed() -> Mapping[str, frozenset[str]]:
    """Every name that a scrape gives, with its labels."""
    found = {"up": _SCRAPED}
    for metric in METRICS:
        labels = _SCRAPED | set(metric.labels)
        if metric.kind == "histogram":
            found |= {f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
            found[f"{metric.name}_bucket"] = labels | {"le"}
        else:
            found[metric.name] = labels
    return found


def _tokens(expr: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(expr):
        token = _TOKEN.match(expr, at)
        if token is None:
            raise ValueError(f"not PromQL from here on: {expr[at:]}")
        at = token.end()
        if token.lastgroup != "space":
            found.append((str(token.lastgroup), token.group()))
    return found


def _closing(tokens: list[tuple[str, str]], at: int, opening: str, closing: str) -> int:
    """The place after the bracket that closes the one at `at`."""
    depth = 0
    while at < len(tokens):
        depth += (tokens[at][1] == opening) - (tokens[at][1] == closing)
        at += 1
        if not depth:
            return at
    raise ValueError(f"no {closing}")
