"""Building blocks of the Grafana dashboards: queries, panels, their places. Only panels of Grafana's core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
RATE: Final = "$__rate_interval"
WIDTH: Final = 24
OK, WARN, CRIT, PLANNED, UNKNOWN = "#167040", "#855800", "#b3261e", "#6a3fa8", "#5f6a7c"
"""The colours of states; each goes with a shape and a word, so that any one of the three is enough."""
QUANTILES: Final = (0.5, 0.95, 0.99)
_FLEETS: Final = ('job=~"$job"', 'instance=~"$instance"')


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression. `legend` may name labels, as `{{server}}`; `instant`: the value at the end alone."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: str = "time_series"


@dataclass(frozen=True, slots=True)
class SizedPanel:
    """A panel and its width; a full row is `WIDTH` wide."""

    width: int
    panel: Json


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side, all of one height. With a `title` a heading comes first."""

    height: int
    cells: tuple[SizedPanel, ...]
    title: str = ""


def chosen(metric: str, *matchers: str) -> str:
    """A metric of the fleets that were chosen above the panels; each matcher as `server=~"$server"`."""
    return f"{metric}{{{','.join((*_FLEETS, *matchers))}}}"


def matching(label: str, pattern: str) -> str:
    """A matcher by a regular expression."""
    return f'{label}=~"{pattern}"'


def rate(metric: str, *matchers: str) -> str:
    """How fast a counter rises, per second."""
    return f"rate({chosen(metric, *matchers)}[{RATE}])"


def quantile(q: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of all observations together, or for each value of the label `by`."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) ({rate(f'{histogram}_bucket', *matchers)}))"


def percentiles(histogram: str, *matchers: str) -> list[Query]:
    """p50, p95 and p99; an average alone hides what users complain about."""
    return [Query(quantile(q, histogram, *matchers), f"p{q * 100:g}") for q in QUANTILES]


def timeseries(title: str, text: str, unit: str, queries: Sequence[Query], **options: Any) -> Json:
    """Lines over time. `stacked`, `most` (upper end of the scale), `colours` (by legend), `links`."""
    custom: Json = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": False}
    if options.get("stacked"):
        custom |= {"fillOpacity": 40, "stacking": {"group": "A", "mode": "normal"}}
    defaults = _defaults(unit, options) | {"custom": custom}
    panel = _panel("timeseries", title, text, queries, defaults, _coloured(options.get("colours", {})))
    panel["options"] = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def stat(title: str, text: str, unit: str, query: Query, **options: Any) -> Json:
    """One number with its recent course. `mappings` and `links` as everywhere."""
    panel = _panel("stat", title, text, [query], _defaults(unit, options), [])
    panel["options"] = {
        "colorMode": "none",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    return panel


def states(title: str, text: str, query: Query, words: Sequence[tuple[int, str, str]], **options: Any) -> Json:
    """A bar per series that changes its colour with its state. `words`: number, word, colour."""
    mappings = {
        str(value): {"color": colour, "index": at, "text": word} for at, (value, word, colour) in enumerate(words)
    }
    defaults = _defaults("short", {**options, "mappings": [{"options": mappings, "type": "value"}]})
    defaults |= {"color": {"mode": "fixed", "fixedColor": UNKNOWN}, "custom": {"fillOpacity": 90, "lineWidth": 0}}
    panel = _panel("state-timeline", title, text, [query], defaults, [])
    panel["options"] = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.85,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel


def table(title: str, text: str, columns: Sequence[tuple[str, str, str]], labels: Mapping[str, str]) -> Json:
    """The latest values side by side. `columns`: heading, unit, expression; `labels`: label to heading.

    Sorted by the first column of values, the greatest first.
    """
    queries = [Query(expr, instant=True, format="table") for _, _, expr in columns]
    panel = _panel("table", title, text, queries, _defaults("short", {}), _columns(columns, labels))
    names = {f"Value #{ref}": heading for ref, (heading, _, _) in zip(_refs(), columns, strict=False)}
    if len(columns) == 1:
        names = {"Value": columns[0][0]}
    order = [*labels, *names]
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {name: at for at, name in enumerate(order)},
                "renameByName": {**labels, **names},
            },
        },
    ]
    panel["options"] = {
        "cellHeight": "sm",
        "showHeader": True,
        "sortBy": [{"desc": True, "displayName": columns[0][0]}],
    }
    return panel


def heatmap(title: str, text: str, unit: str, query: Query) -> Json:
    """How the observations of a histogram are spread, over time."""
    panel = _panel("heatmap", title, text, [query], {"custom": {"hideFrom": {}}}, [])
    panel["options"] = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "reverse": False},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    return panel


def link(title: str, dashboard: str, **variables: str) -> Json:
    """From a row or a line to another dashboard, with the same fleet and the same span of time."""
    carried = "".join(f"&var-{name}={value}" for name, value in variables.items())
    kept = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
    return {"title": title, "url": f"/d/{dashboard}?{kept}{carried}&${{__url_time_range}}", "targetBlank": False}


def laid_out(rows: Sequence[Row]) -> list[Json]:
    """The panels with their places and numbers, from the top left on."""
    placed: list[Json] = []
    top = 0
    for row in rows:
        if row.title:
            heading = {"collapsed": False, "panels": [], "title": row.title, "type": "row"}
            placed.append(_placed(heading, len(placed) + 1, 0, top, WIDTH, 1))
            top += 1
        left = 0
        for cell in row.cells:
            placed.append(_placed(cell.panel, len(placed) + 1, left, top, cell.width, row.height))
            left += cell.width
        top += row.height
    return placed


def _placed(panel: Json, number: int, left: int, top: int, width: int, height: int) -> Json:
    return {"id": number, "gridPos": {"h": height, "w": width, "x": left, "y": top}, **panel}


def _panel(
    kind: str, title: str, text: str, queries: Sequence[Query], defaults: Json, overrides: Sequence[Json]
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "targets": [_target(ref, query) for ref, query in zip(_refs(), queries, strict=False)],
    }


def _target(ref: str, query: Query) -> Json:
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": query.format,
        "instant": query.instant,
        "legendFormat": query.legend or "__auto",
        "range": not query.instant,
        "refId": ref,
    }


def _refs() -> str:
    return "ABCDEFGHIJ"


def _defaults(unit: str, options: Mapping[str, Any]) -> Json:
    """No thresholds: Grafana's own would paint everything above 80 red."""
    defaults: Json = {"color": {"mode": "palette-classic"}, "min": 0, "unit": unit}
    defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": "text", "value": None}]}
    if (most := options.get("most")) is not None:
        defaults["max"] = most
    for key in ("mappings", "links"):
        if key in options:
            defaults[key] = options[key]
    return defaults


def _coloured(colours: Mapping[str, str]) -> list[Json]:
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}}],
        }
        for name, colour in colours.items()
    ]


def _columns(columns: Sequence[tuple[str, str, str]], labels: Mapping[str, str]) -> list[Json]:
    """Units of the values; names of servers and models lead to their dashboards."""
    found = [_override(heading, {"id": "unit", "value": unit}) for heading, unit, _ in columns]
    for label, heading in labels.items():
        if label in ("server", "model"):
            there = link(f"Look at this {label}", f"fleet-{label}", **{label: "${__value.text}"})
            found.append(_override(heading, {"id": "links", "value": [there]}))
    return found


def _override(name: str, *properties: Json) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": list(properties)}
