"""The cases of `tests.kit.cases.alertcases` as promtool's file. Run as a program it writes that file anew."""

from __future__ import annotations

from typing import Any, Final

import yaml

from fleet.config import Config
from fleet.observability.prometheus.rule_files import rules
from tests.kit.cases.alertcases import CASES, Case
from tests.kit.places import ROOT

FILE: Final = ROOT / "deploy" / "prometheus" / "fleet-alerts-test.yml"
RENEW: Final = "python -m tests.kit.cases.alerttests"
_HEAD: Final = f"# Unit tests of fleet-alerts.yml: `promtool test rules fleet-alerts-test.yml`. Made by `{RENEW}`.\n"

Json = dict[str, Any]


def text() -> str:
    """The file for promtool."""
    shipped = yaml.safe_load(rules(Config().alerts))
    alerts = {rule["alert"]: rule for group in shipped["groups"] for rule in group["rules"] if "alert" in rule}
    tests = [_down(alerts["FleetDown"]), *(_test(case, alerts[case.alert]) for case in CASES), _recorded()]
    whole = {"rule_files": ["fleet-alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    return _HEAD + yaml.safe_dump(whole, sort_keys=False, width=10_000)


def _test(case: Case, rule: Json) -> Json:
    fleets = {"bad:8001": case.bad, **{f"good-{at}:8001": other for at, other in enumerate(case.others, 1)}}
    series = [_series(name, at, values) for at, fleet in fleets.items() for name, values in fleet.items()]
    labels = {"job": "fleet", "instance": "bad:8001", **case.labels}
    quiet = [] if case.quiet is None else [_expected(case.alert, case.quiet, [])]
    fires = _expected(case.alert, case.fires, [_alert(rule, labels, case.says)])
    return {"interval": "1m", "name": case.alert, "input_series": series, "alert_rule_test": [*quiet, fires]}


def _series(name: str, instance: str, values: str) -> Json:
    metric, _, labels = name.rstrip("}").partition("{")
    inside = ",".join(filter(None, (labels, f'job="fleet",instance="{instance}"')))
    return {"series": f"{metric}{{{inside}}}", "values": values}


def _expected(alert: str, minute: int, alerts: list[Json]) -> Json:
    return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": alerts}


def _alert(rule: Json, labels: Json, says: str) -> Json:
    wanted = {**labels, "severity": rule["labels"]["severity"]}
    return {"exp_labels": wanted, "exp_annotations": {**rule["annotations"], "description": says}}


def _down(rule: Json) -> Json:
    """It has no fleet to speak of, and none that could be well beside it."""
    fires = _expected("FleetDown", 8, [_alert(rule, {}, rule["annotations"]["description"])])
    series = [_series("up", "bad:8001", "1x4 0x9")]
    quiet = [_expected("FleetDown", minute, []) for minute in (4, 6)]
    return {"interval": "1m", "name": "FleetDown", "input_series": series, "alert_rule_test": [*quiet, fires]}


def _recorded() -> Json:
    """What is recorded for dashboards: one fleet with a fifth of errors, one without any."""
    labels = 'server="a",model="m"'
    series = [
        _series(f'fleet_requests_total{{{labels},outcome="completed"}}', "bad:8001", "0+48x9"),
        _series(f'fleet_requests_total{{{labels},outcome="backend_broke"}}', "bad:8001", "0+12x9"),
        _series(f'fleet_requests_total{{{labels},outcome="completed"}}', "good:8001", "0+60x9"),
    ]
    ratio, rate = "instance:fleet_request_errors:ratio_rate5m", "instance:fleet_requests:rate5m"
    samples: dict[str, dict[str, float]] = {
        ratio: {"bad:8001": 0.2, "good:8001": 0},
        rate: {"bad:8001": 1, "good:8001": 1},
    }
    tests = [
        {
            "expr": name,
            "eval_time": "9m",
            "exp_samples": [
                {"labels": f'{name}{{job="fleet",instance="{instance}"}}', "value": value}
                for instance, value in values.items()
            ],
        }
        for name, values in samples.items()
    ]
    return {"interval": "1m", "name": "recorded", "input_series": series, "promql_expr_test": tests}


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
