"""The files for Prometheus: committed as generated, read by promtool, naming only what the fleet exposes."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import Config
from fleet.observability.alerting.rules import RULES, SEVERITIES
from fleet.observability.prometheus.rule_files import broken, duration, recordings, rules, scraping
from tests.kit.cases import alerttests
from tests.kit.cases.alertcases import CASES
from tests.kit.cases.promql import named, problems
from tests.kit.places import ROOT
from tests.kit.suite import tools

DEPLOY = ROOT / "deploy" / "prometheus"
TEXT = rules(Config().alerts)
GROUPS = {group["name"]: group["rules"] for group in yaml.safe_load(TEXT)["groups"]}
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUPS["fleet"]}
RECORDED = {name for name, _ in recordings()}


def test_the_committed_rules_are_what_the_code_makes() -> None:
    assert (DEPLOY / "fleet-alerts.yml").read_text("utf-8") == TEXT, "renew it with: make export"


def test_the_committed_configuration_is_what_the_code_makes() -> None:
    assert (DEPLOY / "prometheus.yml").read_text("utf-8") == scraping(Config()), "renew it with: make export"


def test_the_committed_unit_tests_are_what_the_cases_say() -> None:
    assert alerttests.FILE.read_text("utf-8") == alerttests.text(), f"renew it with: {alerttests.RENEW}"


def test_each_rule_is_there_and_tried() -> None:
    assert list(ALERTS) == [rule.name for rule in RULES]
    assert {"FleetDown", *(case.alert for case in CASES)} == set(ALERTS)
    for case in CASES:
        assert (case.quiet is not None) == ("for" in ALERTS[case.alert]), (
            f"{case.alert}: try it before its hold is over"
        )


@pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))
def test_each_alert_is_complete(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Fleet[A-Z][A-Za-z]+", alert["alert"])
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in SEVERITIES
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    assert re.fullmatch(r"[^{}]+\.", notes["summary"]), "a static sentence"
    assert notes["runbook_url"] == f"docs/alerts.md#{alert['alert'].lower()}"
    uid = notes["dashboard_url"].removeprefix("/d/")
    assert (ROOT / "deploy" / "grafana" / f"{uid}.json").exists()


def test_each_alert_has_its_section_in_the_runbook() -> None:
    headings = re.findall(r"(?m)^#+ `?(\w+)`?", (ROOT / "docs" / "alerts.md").read_text("utf-8"))
    assert set(ALERTS) <= set(headings)


@pytest.mark.parametrize("rule", [*GROUPS["fleet-recorded"], *GROUPS["fleet"]], ids=lambda rule: rule["expr"][:40])
def test_only_what_the_fleet_exposes_is_asked_for(rule: dict[str, Any]) -> None:
    assert not list(problems(rule["expr"], RECORDED))


@pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))
def test_texts_name_labels_that_the_alert_has(alert: dict[str, Any]) -> None:
    wanted = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["description"])) - {"instance", "job"}
    (rule,) = [rule for rule in RULES if rule.name == alert["alert"]]
    assert wanted <= set(rule.labels)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_names_follow_the_convention(name: str) -> None:
    level, metric, operations = name.split(":")
    assert level in {"instance", "server", "model"}
    assert metric.startswith("fleet_")
    assert re.fullmatch(r"(ratio_)?(rate|p95_)\d+[mhd]", operations)


def test_the_operator_s_thresholds_are_in_the_rules() -> None:
    alerts = Config.model_validate({"alerts": {"queue_wait": 77, "vram": 0.81, "breaker_flaps": 9, "drain": 60}}).alerts
    text = rules(alerts)
    for threshold in ("> 77", "> 0.81", "> 9", "fleet_server_drain_seconds > 60"):
        assert threshold in text
        assert threshold not in TEXT


def test_two_servers_have_no_median_however_low_the_threshold() -> None:
    """As in the app: of two, the slower one is always slower than the middle."""
    text = rules(Config.model_validate({"alerts": {"slow_ratio": 1.1}}).alerts)
    assert re.search(r"and count without \(server\) \(.+\) >= 3\) > 1\.1", text.replace("\n", " "))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_numbers_in_texts_are_written_for_people(rule: Any) -> None:
    """Prometheus' `humanize` makes 16.67m of one request in a minute."""
    formats = re.findall(r"\$value \| (\S+)", rule.description)
    assert set(formats) <= {"humanizePercentage", "humanizeDuration", "printf"}


def test_runbooks_and_dashboards_may_be_elsewhere() -> None:
    text = rules(Config().alerts, docs="https://wiki.example/fleet/", dashboards="https://graphs.example/d")
    assert "runbook_url: https://wiki.example/fleet/alerts.md#fleetdown" in text
    assert "dashboard_url: https://graphs.example/d/fleet-overview" in text


@pytest.mark.parametrize(
    ("server", "target"),
    [
        ({}, "127.0.0.1:8001"),
        ({"metrics_port": 9001}, "127.0.0.1:9001"),
        ({"host": "0.0.0.0"}, "127.0.0.1:8001"),
        ({"host": "::"}, "127.0.0.1:8001"),
        ({"host": "::1"}, "[::1]:8001"),
        ({"host": "10.0.0.5"}, "10.0.0.5:8001"),
    ],
)
def test_the_scraped_address_is_the_metrics_port(server: dict[str, Any], target: str) -> None:
    config = Config.model_validate({"server": server, "security": {"allow_unauthenticated": True}})
    (job,) = yaml.safe_load(scraping(config))["scrape_configs"]
    assert job == {"job_name": "fleet", "static_configs": [{"targets": [target]}]}


def test_a_fleet_with_keys_and_tls_is_scraped_with_both() -> None:
    settings = {
        "server": {"tls": {"certificate": "c.pem", "key": "k.pem"}},
        "security": {"api_keys": ["a-key-of-mine"]},
    }
    (job,) = yaml.safe_load(scraping(Config.model_validate(settings)))["scrape_configs"]
    assert job["scheme"] == "https"
    assert job["authorization"] == {"credentials_file": "fleet-key"}


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0s"), (45, "45s"), (60, "1m"), (90, "90s"), (900, "15m"), (3600, "1h"), (5400, "90m")]
)
def test_durations_are_written_as_prometheus_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize("expr", [rule["expr"] for rule in GROUPS["fleet"]], ids=list(ALERTS))
def test_broken_lines_say_the_same(expr: str) -> None:
    assert broken(expr.replace("\n", " ")) == expr


def test_only_outermost_operators_begin_a_line() -> None:
    assert broken('a{x=") and ("} and (b or c) / 2 / d') == 'a{x=") and ("}\nand (b or c) / 2\n/ d'


# ---- the reader of expressions that these tests rest on


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("nothing_of_ours", "nothing_of_ours is not exposed"),
        ("fleet_queue_wait_seconds", "is not exposed"),
        ("fleet_server_up{model='x'}".replace("'", '"'), "fleet_server_up has no label model"),
        ("sum by (gpu) (fleet_server_up)", "has the label gpu"),
        ("sum(fleet_server_up) by (gpu)", "has the label gpu"),
        ("fleet_server_up / on (state) fleet_server_slots", "has the label state"),
        ("rate(fleet_server_up_total[5m])", "fleet_server_up_total is not exposed"),
        ("time() - 5", "names no metric"),
        ("fleet_in_flight_bucket", "is not exposed"),
    ],
)
def test_the_reader_notices(expr: str, found: str) -> None:
    assert any(found in problem for problem in problems(expr))


@pytest.mark.parametrize(
    "expr",
    [
        "up",
        'histogram_quantile(0.9, sum by (le, model) (rate(fleet_queue_wait_seconds_bucket{model=~"a|b"}[5m])))',
        "sum(fleet_server_up) by (server) > bool 0 and on (server) fleet_server_slots offset 5m",
        'fleet_servers{state="a{b}=c"} unless ignoring (state) group_left () fleet_in_flight == 1e3',
    ],
)
def test_the_reader_has_nothing_against(expr: str) -> None:
    assert not list(problems(expr))


@given(st.text(max_size=60))
def test_the_reader_ends_whatever_it_reads(text: str) -> None:
    with contextlib.suppress(ValueError):
        named(text)


# ---- promtool


@tools.needs("promtool")
def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    for what, name in (("rules", "fleet-alerts.yml"), ("config", "prometheus.yml")):
        checked = tools.run("promtool", "check", what, DEPLOY / name)
        assert checked.returncode == 0, checked.stderr
        assert "SUCCESS" in checked.stdout


@tools.needs("promtool")
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    tested = tools.run("promtool", "test", "rules", alerttests.FILE)
    assert tested.returncode == 0, tested.stdout + tested.stderr
