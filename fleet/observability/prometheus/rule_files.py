"""The files for Prometheus as text: its rules, from `alerting.rules`, and a configuration that scrapes this fleet."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from fleet.breakers.failure_classes import HARMLESS_PATTERN
from fleet.config.schema.model import Config
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.rules import MACHINE, RULES, Rule

Yaml = dict[str, Any]

DOCS: Final = "docs"
DASHBOARDS: Final = "/d"
"""Where runbooks and dashboards are, unless the operator says: paths in the project's repository and in Grafana."""
_RULES: Final = """\
# Rules for Prometheus 2.42 and newer, made by `fleet export alerts`: do not edit, change `alerts` in the configuration.
# What each alert means and what to do about it: docs/alerts.md.
"""
_SCRAPE: Final = """\
# A configuration for Prometheus that scrapes this fleet, made by `fleet export prometheus`. Add to it what you need.
"""
_OPERATORS: Final = r" and | or | unless | / (?!\d)"
_FAILED: Final = f'outcome!~"{HARMLESS_PATTERN}"'


def rules(alerts: AlertsSection, docs: str = DOCS, dashboards: str = DASHBOARDS) -> str:
    """The file of rules: recording rules for dashboards, then the alerts with the operator's thresholds.

    `docs` is where the documentation is (a URL or a path), `dashboards` the part of their URLs before Grafana's uids.
    """
    recorded = {"name": "fleet-recorded", "rules": [_recording(name, expr) for name, expr in recordings()]}
    raised = {"name": "fleet", "rules": [_alert(rule, alerts, docs, dashboards) for rule in RULES]}
    return _RULES + _written({"groups": [recorded, raised]})


def scraping(config: Config, rules_file: str = "fleet-alerts.yml") -> str:
    """A whole configuration for Prometheus: one job for this fleet's metrics port, and the file of rules.

    Where the fleet wants API keys, one is expected in a file beside the configuration.
    """
    server = config.server
    host = "127.0.0.1" if server.host in ("", "0.0.0.0", "::") else server.host
    job: Yaml = {"job_name": "fleet"}
    if server.tls.enabled:
        job["scheme"] = "https"
    if config.security.keys_required:
        job["authorization"] = {"credentials_file": "fleet-key"}
    job["static_configs"] = [
        {"targets": [f"[{host}]:{server.metrics_port}" if ":" in host else f"{host}:{server.metrics_port}"]}
    ]
    whole = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": [rules_file],
        "scrape_configs": [job],
    }
    return _SCRAPE + _written(whole)


def recordings() -> list[tuple[str, str]]:
    """Name and expression of what is computed for dashboards, named `level:metric:operations`."""
    first = "fleet_time_to_first_token_seconds"
    server_first = "fleet_server_first_token_seconds"
    return [
        *((f"instance:fleet_request_errors:ratio_rate{window}", _errors(window)) for window in ("5m", "1h", "6h")),
        ("instance:fleet_requests:rate5m", _summed("fleet_requests_total", "")),
        ("instance:fleet_output_tokens:rate5m", _summed("fleet_output_tokens_total", "")),
        ("model:fleet_requests:rate5m", _summed("fleet_requests_total", ", model")),
        (f"instance:{first}:p95_5m", _p95(first, "")),
        (f"model:{first}:p95_5m", _p95(first, ", model")),
        (f"server:{server_first}:p95_5m", _p95(server_first, ", server")),
    ]


def _summed(counter: str, more: str, window: str = "5m", matcher: str = "") -> str:
    return f"sum by (job, instance{more}) (rate({counter}{matcher}[{window}]))"


def _errors(window: str) -> str:
    """0 while nothing fails; no series has ever begun then."""
    failed = _summed("fleet_requests_total", "", window, f"{{{_FAILED}}}")
    ended = _summed("fleet_requests_total", "", window)
    return f"({failed} or 0 * {ended}) / {ended}"


def _p95(histogram: str, more: str) -> str:
    return f"histogram_quantile(0.95, {_summed(f'{histogram}_bucket', f'{more}, le')})"


def _recording(name: str, expr: str) -> Yaml:
    return {"record": name, "expr": broken(expr)}


def _alert(rule: Rule, alerts: AlertsSection, docs: str, dashboards: str) -> Yaml:
    found: Yaml = {"alert": rule.name, "expr": broken(rule.promql(alerts))}
    if rule.hold:
        found["for"] = duration(rule.hold)
    if rule.keep_firing:
        found["keep_firing_for"] = duration(rule.keep_firing)
    found["labels"] = {"severity": rule.severity}
    found["annotations"] = {
        "summary": rule.summary,
        "description": rule.description,
        "runbook_url": f"{docs.rstrip('/')}/alerts.md#{rule.name.lower()}",
        "dashboard_url": f"{dashboards.rstrip('/')}/{board(rule)}",
    }
    return found


def board(rule: Rule) -> str:
    """The dashboard that shows what a rule is about."""
    if "server" in rule.labels or rule in MACHINE:
        return "fleet-server"
    return "fleet-model" if "model" in rule.labels else "fleet-overview"


def duration(seconds: float) -> str:
    """As Prometheus writes it, in the largest unit that fits: 90s, 5m, 2h."""
    whole = round(seconds)
    for size, unit in ((3600, "h"), (60, "m")):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def broken(expr: str) -> str:
    """An expression with a line of its own for each operand of its outermost set operators and divisions."""
    found, depth, quoted = "", 0, False
    for part in re.split(rf'([(){{}}"]|{_OPERATORS})', expr):
        quoted ^= part == '"'
        depth += 0 if quoted else (part in ("(", "{")) - (part in (")", "}"))
        apart = not depth and not quoted and re.fullmatch(_OPERATORS, part)
        found += f"\n{part[1:]}" if apart else part
    return found


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that people can read them."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _written(value: Yaml) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
