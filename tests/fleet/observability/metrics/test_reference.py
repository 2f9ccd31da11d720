"""docs/metrics.md says what the table of metrics says.

Renew it: `python -m tests.fleet.observability.metrics.test_reference`.
"""

from __future__ import annotations

import re

import pytest

from fleet.observability.metrics.definitions import BUCKETS, METRICS, Metric
from fleet.observability.metrics.reference import refreshed
from tests.kit.places import ROOT

PAGE = ROOT / "docs" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert refreshed(page) == page, "renew it with: python -m tests.fleet.observability.metrics.test_reference"


def test_a_page_without_marks_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="marks"):
        refreshed("# Mine")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_prometheus_customs(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert (metric.name in BUCKETS) == (metric.kind == "histogram")
    assert len(set(metric.labels)) == len(metric.labels)
    assert "le" not in metric.labels
    assert metric.help.endswith(".")


def test_no_metric_is_listed_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text("utf-8")), "utf-8")
