"""docs/alerts.md says of the rules what the table says."""

from __future__ import annotations

import re

from fleet.observability.alerting.rules import RULES
from fleet.observability.prometheus.runbook import page
from tests.kit.places import ROOT

PAGE = ROOT / "docs" / "alerts.md"
BEGIN, END = "<!-- rules: begin (generated, do not edit) -->", "<!-- rules: end -->"
RENEW = "python -m tests.fleet.observability.prometheus.test_runbook"


def refreshed(text: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    return f"{before}{BEGIN}\n\n{page()}\n{END}{after}"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text("utf-8")
    assert refreshed(text) == text, f"renew it with: {RENEW}"


def test_every_rule_has_a_section_once() -> None:
    assert re.findall(r"^### (\w+)$", page(), re.MULTILINE) == [rule.name for rule in RULES]


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text("utf-8")), "utf-8")
