"""The contract of the REST API, row by row: one row for every admin route of the orchestrator's reference.

Shapes and types are checked by `clients.admin`; a row says what the values mean: units, letter case, defaults.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.clients.admin import ROOT
from tests.web.admin.contract.here import SEED, logs, running
from tests.web.admin.contract.rows import ROWS

__all__ = ["logs"]


def documented() -> set[str]:
    return {line for line in SEED.read_text().splitlines() if line and not line.startswith("#")}


def test_every_documented_route_has_its_row_and_no_row_is_about_anything_else() -> None:
    assert ROWS.keys() == documented()


@pytest.mark.parametrize("route", list(ROWS))
def test_a_row_asks_the_route_it_stands_for(route: str) -> None:
    _, path = route.split()
    pattern = re.sub(r":model\b", ".+", path)
    assert re.fullmatch(re.sub(r":\w+", "[^/]+", pattern), (ROOT + ROWS[route].path).partition("?")[0])


@pytest.mark.parametrize("port", ["proxy", "orchestrator"])
@pytest.mark.parametrize("route", list(ROWS))
async def test_the_contract(route: str, port: str, tmp_path: Path) -> None:
    line, method = ROWS[route], route.split()[0]
    async with running(tmp_path, port) as here:
        if line.setup is not None:
            await line.setup(here)
        found = await here.ask(method, line.path, line.body)
        pending = line.check(here, found)
        if pending is not None:
            await pending
