"""The pages for people: every link leads somewhere, and every setting that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.config import Config, load, unsafe_listener
from fleet.config.schema.introspection import fields, leaves
from fleet.config.schema.servers import ServerSpec
from tests.kit.places import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GUIDES = ["README", "clients", "coming-from", "lan", "sizing", "troubleshooting"]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
SECTIONS = "|".join(name for name, _, shape in fields(Config) if shape.model is not None and not shape.many)
SETTING = re.compile(rf"`((?:{SECTIONS})\.[a-z_]+(?:\.[a-z_]+)?)`")
NAMED = re.compile(r"`((?:fleet|actors|web|tests|bench|deploy)/[\w/.-]*)`")
"""A path in the checkout, as pages write it."""
SERVER = re.compile(r"`servers\[\]\.([a-z_]+)")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path}{anchor}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = set(NAMED.findall(page.read_text("utf-8"))) - {"tests/js/node_modules"}  # that one `make test` makes
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_map_of_folders_answers_at_least_twenty_questions() -> None:
    rows = re.findall(r"^\| \.\.\. .*\?.* \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 20
    assert all(NAMED.findall(row) for row in rows)


@pytest.mark.parametrize("name", GUIDES)
def test_every_setting_that_a_guide_names_exists(name: str) -> None:
    text = next(each for each in PAGES if each.stem == name).read_text("utf-8")
    if name == "coming-from":  # the other programs' own settings stand in the first column
        text = re.sub(r"^\| [^|]*\|", "|", text, flags=re.MULTILINE)
    known = {path for path, _, _ in leaves(Config())}
    named = set(SETTING.findall(text)) - {"host.docker.internal"}
    assert named <= known | {path.rpartition(".")[0] for path in known}
    assert set(SERVER.findall(text)) <= {each for each, _, _ in fields(ServerSpec)}
    assert named or name in ("lan", "sizing")


def test_the_configuration_of_the_way_into_the_network_is_valid() -> None:
    page = (ROOT / "docs" / "lan.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    config = load("\n".join(blocks), {}, {}, source="lan.md").config
    assert [spec.id for spec in config.servers] == ["gpu-1", "mac"]
    assert unsafe_listener(config) is None
    assert config.server.tls.enabled
