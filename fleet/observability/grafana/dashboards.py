"""The Grafana dashboards that come with the fleet, as the text of their files. For Grafana 10 and newer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.observability.grafana import model, overview, server
from fleet.observability.grafana.panels import CRIT, PLANNED, SOURCE, UNKNOWN, WARN, Json, Row, chosen, laid_out

SCHEMA: Final = 39
TAG: Final = "ollama-fleet"
_ALL: Final = ".+"


@dataclass(frozen=True, slots=True)
class _Board:
    """One dashboard; `uid` is also the name of its file. `variables`: label to the metric whose values are offered."""

    uid: str
    title: str
    text: str
    rows: Sequence[Row]
    variables: Mapping[str, str]


def files() -> dict[str, str]:
    """The text of each file by its name, the same for the same version of the fleet."""
    return {f"{board.uid}.json": _text(board) for board in _boards()}


def _text(board: _Board) -> str:
    return json.dumps(_dashboard(board), indent=2, ensure_ascii=False) + "\n"


def _boards() -> list[_Board]:
    servers, models = {"server": "fleet_server_up"}, {"model": "fleet_model_installed"}
    return [
        _Board(
            "fleet-overview",
            "Fleet / Overview",
            "What users of the fleet feel, and where to look when something is wrong.",
            overview.rows(),
            {},
        ),
        _Board(
            "fleet-server",
            "Fleet / Servers",
            "How busy the servers are, how fast, what fails there; and the fleet's own machine.",
            server.rows(),
            servers,
        ),
        _Board(
            "fleet-model",
            "Fleet / Models",
            "Where models are, how fast they answer, what their loads cost.",
            model.rows(),
            models,
        ),
    ]


def _dashboard(board: _Board) -> Json:
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.text,
        "tags": [TAG],
        "id": None,
        "version": 1,
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "links": [_menu()],
        "annotations": {"list": [_built_in(), *_annotations()]},
        "templating": {"list": _variables(board.variables)},
        "panels": laid_out(board.rows),
    }


def _menu() -> Json:
    """All dashboards with our tag, in one menu."""
    return {
        "type": "dashboards",
        "title": "Fleet",
        "tags": [TAG],
        "asDropdown": True,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "The other dashboards of the fleet",
        "url": "",
    }


def _variables(more: Mapping[str, str]) -> list[Json]:
    """Data source, job and instance on each dashboard, then what it is about."""
    source: Json = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }
    jobs = _variable("job", "label_values(fleet_build_info, job)")
    instances = _variable("instance", 'label_values(fleet_build_info{job=~"$job"}, instance)')
    return [
        source,
        jobs,
        instances,
        *(_variable(name, f"label_values({chosen(of)}, {name})") for name, of in more.items()),
    ]


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "allValue": _ALL,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }


def _built_in() -> Json:
    """Grafana's own entry; it adds one where it is missing."""
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": UNKNOWN,
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _annotations() -> list[Json]:
    serving, changed = chosen("fleet_server_in_service"), chosen("fleet_config_reload_timestamp_seconds")
    began, opened = chosen("fleet_start_time_seconds"), chosen("fleet_breaker_state")
    return [
        _annotation("Out of service", f"max by (server) (1 - {serving}) > 0", "{{server}}", PLANNED),
        _annotation("Breaker open", f"max by (server, model) ({opened}) == 2", "{{server}} {{model}}", CRIT),
        _annotation("Configuration changed", f"changes({changed}[1m]) > 0", "{{instance}}", WARN),
        _annotation("Restart", f"changes({began}[1m]) > 0", "{{instance}}", UNKNOWN),
    ]


def _annotation(name: str, expr: str, text: str, colour: str) -> Json:
    """A mark on every chart of a dashboard for as long as the expression has values."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "expr": expr,
        "hide": False,
        "iconColor": colour,
        "step": "30s",
        "tagKeys": "",
        "textFormat": text,
        "titleFormat": name,
        "useValueForTime": False,
    }
