"""`fleet export`: what it writes, where, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from fleet.config import Config
from fleet.observability.grafana.dashboards import files
from fleet.observability.prometheus.rule_files import rules, scraping
from web.cli import main


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fleet(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main.app, ["export", *arguments], env=environment)


def test_dashboards_go_into_a_directory_that_is_made() -> None:
    ended = fleet("grafana", "a/b")
    assert (ended.exit_code, ended.stdout) == (0, "")
    written = {path.name: path.read_text("utf-8") for path in Path("a/b").iterdir()}
    assert written == files()
    assert {json.loads(text)["uid"] for text in written.values()} == {"fleet-overview", "fleet-server", "fleet-model"}


@pytest.mark.parametrize("where", [(), ("-",)])
def test_without_a_file_it_is_printed_and_nothing_else(where: tuple[str, ...]) -> None:
    for what, text in (("alerts", rules(Config().alerts)), ("prometheus", scraping(Config()))):
        ended = fleet(what, *where)
        assert (ended.exit_code, ended.stdout, ended.stderr) == (0, text, "")
    assert not list(Path().iterdir())


def test_alerts_have_the_thresholds_of_the_configuration() -> None:
    Path("config.yml").write_text("alerts: {queue_wait: 77}\n")
    Path("other.yml").write_text("alerts: {queue_wait: 88}\n")
    assert "> 77" in fleet("alerts").stdout
    assert "> 88" in fleet("alerts", "--config", "other.yml").stdout
    assert "> 99" in fleet("alerts", FLEET_ALERTS__QUEUE_WAIT="99").stdout


def test_runbooks_and_dashboards_may_be_elsewhere() -> None:
    text = fleet("alerts", "--docs", "https://wiki.example", "--dashboards", "https://graphs.example/d").stdout
    notes = yaml.safe_load(text)["groups"][1]["rules"][0]["annotations"]
    assert notes["runbook_url"] == "https://wiki.example/alerts.md#fleetdown"
    assert notes["dashboard_url"] == "https://graphs.example/d/fleet-overview"


def test_prometheus_is_told_the_metrics_port() -> None:
    Path("config.yml").write_text("server: {metrics_port: 9001}\n")
    ended = fleet("prometheus", "prometheus.yml")
    assert ended.exit_code == 0
    assert "127.0.0.1:9001" in Path("prometheus.yml").read_text()
    assert "prometheus.yml written" in ended.stderr


def test_a_port_that_is_not_known_yet_cannot_be_scraped() -> None:
    Path("config.yml").write_text("server: {metrics_port: 0}\n")
    ended = fleet("prometheus")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "server.metrics_port" in ended.stderr


def test_what_somebody_has_changed_is_not_replaced_unless_they_say_so() -> None:
    assert fleet("alerts", "rules.yml").exit_code == 0
    assert fleet("alerts", "rules.yml").exit_code == 0, "the same again harms nobody"
    Path("rules.yml").write_text("mine")
    ended = fleet("alerts", "rules.yml")
    assert ended.exit_code == 1
    assert "rules.yml" in ended.stderr
    assert Path("rules.yml").read_text() == "mine"
    assert fleet("alerts", "rules.yml", "--force").exit_code == 0
    assert Path("rules.yml").read_text() == rules(Config().alerts)


def test_one_dashboard_of_somebody_s_own_keeps_all_from_being_written() -> None:
    Path("there").mkdir()
    Path("there/fleet-model.json").write_text("mine")
    assert fleet("grafana", "there").exit_code == 1
    assert [path.name for path in Path("there").iterdir()] == ["fleet-model.json"]


def test_what_cannot_be_written_is_a_sentence() -> None:
    Path("file").write_text("")
    for arguments in (("grafana", "file/there"), ("alerts", "file/rules.yml")):
        ended = fleet(*arguments)
        assert ended.exit_code == 1
        assert ended.stderr.startswith("fleet: file")
        assert "cannot be written" in ended.stderr


def test_a_bad_configuration_is_exit_code_2() -> None:
    Path("config.yml").write_text("alerts: {queue_wait: soon}\n")
    ended = fleet("alerts")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "alerts.queue_wait" in ended.stderr


def test_the_dashboards_need_no_configuration() -> None:
    Path("config.yml").write_text("nonsense: [\n")
    assert fleet("grafana", "there").exit_code == 0
