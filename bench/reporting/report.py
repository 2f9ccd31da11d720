"""The report of a run, as JSON and as Markdown. Pure, but for `write`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.reporting.results import Results, Spread
from bench.reporting.targets import Verdict, verdicts
from bench.scenarios import SCENARIOS, Scenario, Streams
from bench.special import SPECIAL

FOLDER = Path(__file__).parent.parent / "results"
NOTE = "Absolute figures mean nothing on another machine, or on this one an hour later. Compare the ratios."
Settings = Mapping[str, str]


def amount(value: float) -> str:
    """A number with the digits that matter."""
    if value == int(value) and abs(value) < 1e4:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def with_range(spread: Spread | None, unit: str = "") -> str:
    if spread is None:
        return ""
    text = f"{amount(spread.median)}{unit}"
    return text if spread.low == spread.high else f"{text} ({amount(spread.low)} to {amount(spread.high)})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render(results: Results, machine: Settings, options: Settings) -> str:
    return "\n\n".join(_parts(results, machine, options)) + "\n"


def _parts(results: Results, machine: Settings, options: Settings) -> Iterator[str]:
    yield "# Benchmark"
    yield NOTE
    yield "\n".join(f"* {name}: {text}" for name, text in {**machine, **options}.items())
    yield "## Verdicts"
    yield table(["what", "measure", "must", "aim", "measured", "verdict"], [_row(v) for v in verdicts(results)])
    yield "Measured: the median over the rounds, with the least and the greatest; of errors, the worst round."
    for scenario in SCENARIOS:
        yield from _section(results, scenario)
    for name, special in SPECIAL.items():
        yield from _special(results, name, special.title)


def _row(verdict: Verdict) -> list[str]:
    target = verdict.target
    at, unit = ("<= " if target.less_is_better else ""), (target.unit if target.unit == "x" else f" {target.unit}")
    measured = with_range(verdict.measured, unit) or "not measured"
    bounds = [f"{at}{amount(bound)}{unit}" for bound in (target.must, target.aim)]
    return [target.what, target.measure, *bounds, measured, verdict.words]


def _skipped(results: Results, name: str) -> str:
    lines = [f"* {who}: not measured: {why}" for who, why in results.reasons.get(name, {}).items()]
    return "\n".join(lines)


def _section(results: Results, scenario: Scenario) -> Iterator[str]:
    samples, skipped = results.samples.get(scenario.name, {}), _skipped(results, scenario.name)
    if not samples and not skipped:
        return
    yield f"## {scenario.title} (`{scenario.name}`)"
    if samples:
        streams = isinstance(scenario.load, Streams)
        what = "tokens/s" if streams else "requests/s"
        times = ["first token p50, ms", "first token p99, ms", "longest gap, ms"] if streams else ["p50, ms", "p99, ms"]
        against = [f"{what} against {scenario.reference}"]
        against += [] if streams else [f"p50 against {scenario.reference}"]
        head = ["", *against, what, *times, "errors"]
        yield table(head, [_contender(results, scenario, name) for name in samples])
    if skipped:
        yield skipped


def _contender(results: Results, scenario: Scenario, name: str) -> list[str]:
    streams = isinstance(scenario.load, Streams)
    times = ["first_p50_us", "first_p99_us", "gap_max_us"] if streams else ["p50_us", "p99_us"]
    ratios = [results.ratio(scenario.name, metric, name, scenario.reference) for metric in ["rate", "p50_us"]]
    cells = [f"**{with_range(ratio, 'x')}**" if ratio else "" for ratio in ratios[: 1 if streams else 2]]
    cells.append(with_range(results.spread(scenario.name, name, "rate")))
    cells += [_milliseconds(results.spread(scenario.name, name, metric)) for metric in times]
    return [name, *cells, amount(sum(results.values(scenario.name, name, "errors")))]


def _milliseconds(spread: Spread | None) -> str:
    return amount(spread.median / 1e3) if spread else ""


def _special(results: Results, name: str, title: str) -> Iterator[str]:
    samples, skipped = results.samples.get(name, {}), _skipped(results, name)
    if not samples and not skipped:
        return
    yield f"## {title} (`{name}`)"
    if samples:
        units = list(next(iter(samples.values())))
        rows = [[who, *(with_range(results.spread(name, who, unit)) for unit in units)] for who in samples]
        yield table(["", *units], rows)
    if skipped:
        yield skipped


def document(results: Results, machine: Settings, options: Settings) -> dict[str, Any]:
    """Everything that was measured, for programs."""
    rows = [
        {
            "what": verdict.target.what,
            "measure": verdict.target.measure,
            "must": verdict.target.must,
            "aim": verdict.target.aim,
            "unit": verdict.target.unit,
            "measured": asdict(verdict.measured) if verdict.measured else None,
            "verdict": verdict.words,
        }
        for verdict in verdicts(results)
    ]
    told = {"samples": results.samples, "not_measured": results.reasons}
    return {"machine": dict(machine), "options": dict(options), **told, "targets": rows}


def write(results: Results, machine: Settings, options: Settings, folder: Path = FOLDER) -> Path:
    """Write latest.json and latest.md into a folder; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document(results, machine, options), indent=1)
    (folder / "latest.json").write_text(text + "\n")
    page = folder / "latest.md"
    page.write_text(render(results, machine, options))
    return page
