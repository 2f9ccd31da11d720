"""The Grafana dashboards: committed as generated, and linted. Rules are named as in Grafana's own dashboard linter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.observability.grafana.dashboards import files
from fleet.observability.prometheus.rule_files import recordings
from tests.kit.cases.promql import named, problems
from tests.kit.places import ROOT
from tests.kit.suite import tools

DEPLOY = ROOT / "deploy"
PROVISIONING = DEPLOY / "grafana" / "provisioning"
FILES = files()
CORE = {"row", "timeseries", "stat", "table", "heatmap", "state-timeline"}
RECORDED = {name for name, _ in recordings()}
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]
each_board = pytest.mark.parametrize("board", [json.loads(text) for text in FILES.values()], ids=list(FILES))


def plain(expr: str) -> str:
    """An expression as Prometheus gets it: with Grafana's variables filled in."""
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    return re.sub(r"\$\w+", ".+", expr)


def panels(board: Json) -> Iterator[Json]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


def targets(board: Json) -> Iterator[Json]:
    return (target for panel in panels(board) for target in panel["targets"])


def expressions(board: Json) -> list[str]:
    """Of panels and annotations."""
    marks = [mark["expr"] for mark in board["annotations"]["list"] if "expr" in mark]
    return [target["expr"] for target in targets(board)] + marks


@pytest.mark.parametrize("name", FILES)
def test_the_committed_dashboards_are_what_the_code_makes(name: str) -> None:
    assert (DEPLOY / "grafana" / name).read_text("utf-8") == FILES[name], "renew it with: make export"


def test_no_other_dashboard_lies_around() -> None:
    assert {path.name for path in (DEPLOY / "grafana").glob("*.json")} == set(FILES)


def test_dashboards_are_the_same_each_time() -> None:
    assert files() == FILES


@each_board
def test_what_is_fixed(board: Json) -> None:
    assert board["schemaVersion"] == 39
    assert board["uid"] in {"fleet-overview", "fleet-server", "fleet-model"}
    assert (board["tags"], board["id"], board["graphTooltip"]) == (["ollama-fleet"], None, 1)
    assert (board["refresh"], board["time"]) == ("30s", {"from": "now-1h", "to": "now"})
    (menu,) = board["links"]
    assert (menu["type"], menu["tags"], menu["asDropdown"]) == ("dashboards", ["ollama-fleet"], True)
    assert {panel["type"] for panel in board["panels"]} <= CORE


@each_board
def test_uneditable_dashboard(board: Json) -> None:
    assert board["editable"] is False


@each_board
def test_template_datasource_rule(board: Json) -> None:
    source = board["templating"]["list"][0]
    assert (source["name"], source["label"], source["type"]) == ("datasource", "Data source", "datasource")
    assert source["query"] == "prometheus"
    assert source["current"] == {}


@each_board
@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_and_instance_rule(board: Json, name: str) -> None:
    (variable,) = [each for each in board["templating"]["list"] if each["name"] == name]
    assert variable["label"] == name.capitalize()
    assert variable["multi"] is variable["includeAll"] is True
    assert variable["allValue"] == ".+"


@each_board
def test_template_label_promql_and_on_time_change_reload_rule(board: Json) -> None:
    for variable in board["templating"]["list"][1:]:
        inner = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert inner is not None
        ((metric, _),) = named(plain(inner[1])).metrics
        assert not list(problems(f"sum by ({inner[2]}) ({plain(inner[1])})")), metric
        assert (variable["datasource"], variable["refresh"]) == (DATASOURCE, 2)


@each_board
def test_panel_datasource_rule(board: Json) -> None:
    for each in (*panels(board), *targets(board)):
        assert each["datasource"] == DATASOURCE


@each_board
def test_panel_title_description_rule(board: Json) -> None:
    titles = [panel["title"] for panel in panels(board)]
    assert all(titles)
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert re.fullmatch(r"[A-Z0-9].*[.)]", panel["description"]), panel["title"]


@each_board
def test_panel_units_rule(board: Json) -> None:
    for panel in panels(board):
        unit = panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else None
        assert unit or panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] != "heatmap":
            assert panel["fieldConfig"]["defaults"]["min"] == 0


@each_board
def test_panel_no_targets_rule_and_references_are_unique(board: Json) -> None:
    for panel in panels(board):
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)


@each_board
def test_no_threshold_paints_everything_red(board: Json) -> None:
    for panel in panels(board):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        assert all(step["value"] is None for step in steps)


@each_board
def test_panels_have_places_of_their_own(board: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    deepest = max(y for _, y in taken) + 1
    assert len(taken) == 24 * deepest, "there are gaps"
    assert [panel["id"] for panel in board["panels"]] == list(range(1, len(board["panels"]) + 1))


@each_board
def test_target_job_and_instance_rule(board: Json) -> None:
    for expr in expressions(board):
        for metric, matched in named(plain(expr)).metrics:
            assert {"job", "instance"} <= matched, f"{metric} in {expr}"
        assert 'job=~"$job"' in expr


@each_board
def test_target_rate_interval_rule(board: Json) -> None:
    for target in targets(board):
        spans = re.findall(r"\[([^\]]*)\]", re.sub(r'"[^"]*"', "", target["expr"]))
        assert set(spans) <= set(VARIABLES), target["expr"]


@each_board
def test_target_counter_agg_rule(board: Json) -> None:
    """A counter, as such, says nothing: only how fast it rises does."""
    for expr in expressions(board):
        for found in re.finditer(r"(\w*\()?(\w+_(?:total|bucket|count|sum))\{", expr):
            assert found[1] in ("rate(", "increase("), f"{found[2]} in {expr}"


@each_board
def test_only_what_the_fleet_exposes_is_asked_for(board: Json) -> None:
    found = [problem for expr in expressions(board) for problem in problems(plain(expr), RECORDED)]
    assert not found


@each_board
def test_legends_name_labels_that_are_there(board: Json) -> None:
    for target in targets(board):
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        there = named(plain(target["expr"])).groupings
        assert wanted <= there | {"instance"}, target["expr"]


@each_board
def test_percentiles_are_of_all_observations_together(board: Json) -> None:
    for target in targets(board):
        for found in re.finditer(r"histogram_quantile\([\d.]+, (sum by \([\w, ]*\ble\) \(rate\()?", target["expr"]):
            assert found[1], target["expr"]


@each_board
def test_links_lead_to_dashboards_that_exist(board: Json) -> None:
    urls = re.findall(r'"url": "(/d/[^"]+)"', json.dumps(board))
    uids = {name.removesuffix(".json") for name in FILES}
    for url in urls:
        assert re.match(r"/d/([\w-]+)\?", url)[1] in uids  # type: ignore[index]
        assert "${__url_time_range}" in url
        assert "${job:queryparam}" in url


def test_the_overview_leads_to_servers() -> None:
    assert "/d/fleet-server?" in FILES["fleet-overview.json"]
    assert "/d/fleet-model?" in FILES["fleet-server.json"]


def test_provisioning_names_one_source_and_one_folder() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "fleet.yml").read_text("utf-8"))["datasources"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]) == ("prometheus", {"timeInterval": scrape})
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "fleet.yml").read_text("utf-8"))["providers"]
    assert (provider["type"], provider["options"].keys()) == ("file", {"path"})


@tools.needs("promtool")
def test_promtool_can_read_every_expression(tmp_path: Path) -> None:
    texts = [plain(expr) for text in FILES.values() for expr in expressions(json.loads(text))]
    rules = [{"record": f"a:b:c{at}", "expr": expr} for at, expr in enumerate(texts)]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    checked = tools.run("promtool", "check", "rules", file)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(texts)} rules found" in checked.stdout
