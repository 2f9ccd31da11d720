"""The API's description, the page and the document made from the route table."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from tests.kit.fleets.served import served
from tests.kit.places import ROOT
from web.admin import openapi
from web.admin.kit.schemas import schema
from web.admin.route_table import FACES, TOPICS, entries

BEGIN, END = "<!-- routes: begin (generated, do not edit) -->", "<!-- routes: end -->"
RENEW = "python -m tests.web.admin.test_openapi"
SEED = ROOT / "tests" / "web" / "admin" / "contract" / "seed_routes.txt"


def document() -> dict[str, Any]:
    return openapi.document(TOPICS, "1.2.3")


def refreshed(text: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    own = [topic for topics in FACES.values() for topic in topics if topic not in TOPICS]
    return f"{before}{BEGIN}\n\n{openapi.rows([*TOPICS, *own])}\n{END}{after}"


def test_every_route_is_in_the_document_with_its_role() -> None:
    paths = document()["paths"]
    for entry in entries():
        operation = paths[openapi.readable(entry.path)][entry.method.lower()]
        assert operation["x-role"] == entry.role.word
        assert operation["summary"] == entry.does


def test_operations_have_names_of_their_own() -> None:
    names = [op["operationId"] for path in document()["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    named = set(re.findall(r"#/components/schemas/([A-Za-z0-9_]+)", str(whole)))
    assert named <= whole["components"]["schemas"].keys()
    assert {"Error", "ServerSpec"} <= named


def test_every_schema_is_a_schema() -> None:
    whole = document()
    for found in whole["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(found)
    for entry in entries():
        jsonschema.Draft202012Validator.check_schema(schema(entry.returns))


def test_what_changes_something_is_audited_and_what_does_not_is_not() -> None:
    harmless = {"/api/orchestrator/health-check"}
    for entry in entries():
        changes = entry.method != "GET" and entry.path not in harmless
        assert bool(entry.action) == changes, f"{entry.method} {entry.path}"


def test_every_documented_route_of_the_reference_is_served() -> None:
    """`seed_routes.txt` lists every route of the orchestrator's reference that belongs to the admin API."""
    served_here = {(entry.method, re.sub(r"<(?:path:)?\w+>", ":x", entry.path)) for entry in entries()}
    wanted = {tuple(line.split()) for line in SEED.read_text().splitlines() if line and not line.startswith("#")}
    missing = {(method, path) for method, path in wanted if (method, re.sub(r":\w+", ":x", path)) not in served_here}
    assert not missing


def test_the_route_table_marks_exactly_the_documented_routes() -> None:
    wanted = {tuple(line.split()) for line in SEED.read_text().splitlines() if line and not line.startswith("#")}
    shapes = {(method, re.sub(r":\w+", ":x", path)) for method, path in wanted}
    marked = {(e.method, re.sub(r"<(?:path:)?\w+>", ":x", e.path)) for e in entries() if e.seed}
    assert marked == shapes


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert refreshed(page) == page, f"renew it with: {RENEW}"


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        (int, 3, "3"),
        (bool, True, 1),
        (str, "x", None),
        (dict, {"a": 1}, [1]),
    ],
)
def test_a_shape_says_what_it_means(shape: Any, good: Any, bad: Any) -> None:
    jsonschema.validate(good, schema(shape))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema(shape))


async def test_document_and_page_are_served() -> None:
    async with served("a") as fleet, fleet.client() as client:
        answer = await client.get("/openapi.json")
        assert answer.status_code == 200
        assert answer.json()["paths"].keys() == document()["paths"].keys()
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for entry in entries():
            assert openapi.readable(entry.path) in page.text


async def test_without_a_key_document_and_page_are_refused_in_the_admin_api_s_words() -> None:
    async with served("a", security={"api_keys": ["a-key-of-mine"]}) as fleet, fleet.client() as client:
        for path in ("/openapi.json", "/docs"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["success"]) == (401, False)


if __name__ == "__main__":
    page = ROOT / "docs" / "api.md"
    page.write_text(refreshed(page.read_text("utf-8")), "utf-8")
