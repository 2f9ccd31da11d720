"""The shape of the house, enforced: layers, purity, sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"fleet": 0, "actors": 1, "web": 2}
IMPURE = {"trio", "httpx", "quart", "quart_trio", "hypercorn", "socket", "time", "random", "os", "psutil", "ssl", "h11"}
BACKEND_IO = {"httpx": {"actors/observability/alert_webhook.py"}}
HOST_IO = {"psutil", "pynvml"}
MOST_LINES = 400
MOST_FUNCTION_LINES = 40

SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
WORKSHOP = sorted((ROOT / "bench").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_web_knows_actors_knows_fleet_and_never_back(path: Path) -> None:
    room = name(path).split("/")[0]
    for module in imports(path):
        head = module.split(".")[0]
        if head in ROOMS:
            assert ROOMS[head] <= ROOMS[room], f"{name(path)} imports {module}"
        assert head != "tests", f"{name(path)} imports {module}"
        if room == "fleet":
            assert head not in IMPURE, f"fleet/ is pure, but {name(path)} imports {module}"


@pytest.mark.parametrize("module", BACKEND_IO)
def test_only_its_border_module_imports_the_http_client(module: str) -> None:
    actors = [path for path in SOURCES if name(path).startswith("actors/")]
    users = {name(path) for path in actors if module in {m.split(".")[0] for m in imports(path)}}
    assert users == BACKEND_IO[module]


def test_only_the_probes_of_the_machine_touch_it() -> None:
    users = {name(path) for path in SOURCES if HOST_IO & {module.split(".")[0] for module in imports(path)}}
    assert users == {"actors/observability/host/machine.py"}  # NVIDIA's library is loaded only where it is asked for


@pytest.mark.parametrize("path", [*SOURCES, *WORKSHOP], ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{name(path)}:{node.lineno} {node.name} has {length} lines"
