"""The shape of the house, enforced: layers, purity, sizes, and which folder may know which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.kit.suite.sources import ROOMS, ROOT, SOURCES, imports, name

IMPURE = {"trio", "httpx", "quart", "quart_trio", "hypercorn", "socket", "time", "random", "os", "psutil", "ssl", "h11"}
BACKEND_IO = {"httpx": {"actors/observability/alert_webhook.py"}}
CLOCK_READERS = {
    "actors/kit/clock.py": "the one place",
    "web/process/watchdog_child.py": "a process of its own, which loads nothing",
    "web/security/request_gate.py": "dice for the ids of requests, which no fleet owns",
    "web/simulator/engine/host.py": "another machine's clock and dice",
}
"""Who reads a clock of the machine's or throws dice of its own, and why it has none of the fleet's."""
HOST_IO = {"psutil", "pynvml"}
MOST_LINES = 400
MOST_FUNCTION_LINES = 40

WORKSHOP = sorted((ROOT / "bench").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


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


CLOCKS = re.compile(r"""
    \btime\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|process_time)\b
    | from\ time\ import | from\ random\ import
    | \brandom\.(Random|SystemRandom|random|randrange|randint|choice|uniform|getrandbits|shuffle)\b
    | \bdatetime\.(now|utcnow|today)\b | \bdate\.today\b
""", re.VERBOSE)  # fmt: skip


def test_the_time_and_the_dice_are_taken_from_the_fleets_clock() -> None:
    rooms = [path for path in SOURCES if not name(path).startswith("fleet/")]
    assert {name(path) for path in rooms if CLOCKS.search(path.read_text())} == set(CLOCK_READERS)


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


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_a_file_of_tests_is_about_one_subject(path: Path) -> None:
    assert path.read_text().count("\n") <= MOST_LINES


# ---- who may know whom

MOST_ENTRIES = 16

KNOWS = {
    "actors": "breakers dispatch jobs kit observability observability/dashboard observability/host "
    "requests security servers state storage storage/history upstream",
    "actors/breakers": "kit state upstream",
    "actors/config": "kit security servers state",
    "actors/dispatch": "state",
    "actors/jobs": "dispatch kit requests state storage",
    "actors/kit": "",
    "actors/observability": "breakers kit observability/host state storage storage/history",
    "actors/observability/dashboard": "breakers jobs observability observability/host state",
    "actors/observability/host": "kit state",
    "actors/requests": "kit state upstream",
    "actors/security": "",
    "actors/servers": "kit requests state storage upstream",
    "actors/state": "kit storage upstream",
    "actors/storage": "",
    "actors/storage/history": "kit state storage",
    "actors/upstream": "",
    "web": "admin admin/kit asgi edge http live monitoring ollama_api process security",
    "web/admin": "admin/breakers admin/config admin/history admin/kit admin/models admin/observability admin/requests "
    "admin/servers asgi http monitoring ollama_api security",
    "web/admin/breakers": "admin/kit http",
    "web/admin/config": "admin/kit http",
    "web/admin/history": "admin/kit http",
    "web/admin/kit": "asgi http monitoring ollama_api process security",
    "web/admin/models": "admin/kit asgi http ollama_api",
    "web/admin/observability": "admin/kit admin/models asgi http monitoring process security",
    "web/admin/requests": "admin/kit http",
    "web/admin/servers": "admin/kit admin/models http",
    "web/asgi": "http process security",
    "web/cli": ". http process simulator simulator/engine",
    "web/edge": "http monitoring ollama_api process security",
    "web/http": "",
    "web/live": "admin admin/kit asgi http security",
    "web/monitoring": "http",
    "web/ollama_api": "asgi http monitoring security",
    "web/process": "",
    "web/security": "http",
    "web/simulator": "simulator/engine simulator/ollama_api",
    "web/simulator/engine": "",
    "web/simulator/ollama_api": "simulator/engine",
}
"""What each folder may import of its own room (`.` is the room itself): the order in which the house can be understood.

A folder that needs another line here is asked first whether the file stands in the right place, then whether what it
needs can be handed in.
"""

ASKS = {
    "web": "actors actors/config actors/kit actors/observability actors/state actors/storage actors/storage/history",
    "web/admin": "",
    "web/admin/breakers": "actors/kit actors/state",
    "web/admin/config": "actors/config",
    "web/admin/history": "actors actors/state actors/storage/history",
    "web/admin/kit": "actors actors/config",
    "web/admin/models": "actors actors/jobs actors/state",
    "web/admin/observability": "actors actors/config actors/state actors/storage actors/storage/history",
    "web/admin/requests": "actors actors/kit actors/state",
    "web/admin/servers": "actors actors/config actors/jobs actors/kit actors/state",
    "web/asgi": "actors",
    "web/cli": "actors/config actors/kit actors/observability actors/security",
    "web/edge": "actors actors/upstream",
    "web/http": "actors/kit actors/state",
    "web/live": "actors actors/observability/dashboard",
    "web/monitoring": "actors actors/observability actors/state",
    "web/ollama_api": "actors",
    "web/process": "",
    "web/security": "actors/kit actors/security actors/state actors/storage",
    "web/simulator": "",
    "web/simulator/engine": "",
    "web/simulator/ollama_api": "",
}
"""What each folder of `web/` may import of `actors/`."""


def imported_files(path: Path) -> Iterator[str]:
    """Our own files that one imports: for its types only, and within functions, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
        else:
            continue
        yield from (file for each in modules if (file := file_of(*each)))


def file_of(*modules: str) -> str | None:
    """The first of these modules that is a file of ours."""
    for module in modules:
        stem = ROOT / module.replace(".", "/")
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if module.split(".")[0] in ROOMS and file.is_file():
                return name(file)
    return None


@cache
def folder_imports() -> Mapping[tuple[str, str], list[str]]:
    """Which folder imports which other, and by which of its files."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in SOURCES:
        here = name(path.parent)
        for file in imported_files(path):
            there = file.rpartition("/")[0]
            if there != here:
                found.setdefault((here, there), []).append(f"{name(path)} imports {file}")
    return found


def a_circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The nodes of one circle in their order, or nothing."""
    order: dict[str, set[str]] = {}
    for here, there in edges:
        order.setdefault(here, set()).add(there)
    try:
        TopologicalSorter(order).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def table() -> Iterator[tuple[str, str]]:
    """What the tables above allow."""
    for here, said in KNOWS.items():
        room = here.split("/")[0]
        for each in said.split():
            yield here, room if each == "." else f"{room}/{each}"
    for here, said in ASKS.items():
        yield from ((here, each) for each in said.split())


def test_no_folder_is_on_a_circle_of_imports() -> None:
    assert a_circle(folder_imports().keys()) == []


def test_the_table_of_folders_has_no_circle_and_no_dead_line() -> None:
    assert a_circle(table()) == []
    folders = {name(path.parent) for path in SOURCES if name(path).split("/")[0] != "fleet"}
    assert list(KNOWS) == sorted(KNOWS)
    assert set(KNOWS) == folders
    assert set(ASKS) == {each for each in folders if each.split("/")[0] == "web"}
    assert {there for _, there in table()} <= folders


def test_a_folder_imports_only_what_the_table_allows() -> None:
    allowed = set(table())
    found = {edge: files for edge, files in folder_imports().items() if edge[1].split("/")[0] != "fleet"}
    assert {edge: files for edge, files in found.items() if edge not in allowed and edge[0] in KNOWS} == {}


def test_no_two_public_classes_have_one_name() -> None:
    owners: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(name(path))
    assert {each: files for each, files in owners.items() if len(files) > 1} == {}


def test_every_folder_says_what_lives_in_it() -> None:
    for folder in sorted({path.parent for path in SOURCES}):
        told = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert told, f"{name(folder)} says nothing"
        assert told.count(". ") + told.count(".\n") <= 3, f"{name(folder)} says too much"


def test_no_folder_holds_more_than_one_can_look_over() -> None:
    for room in (*ROOMS, "bench", "tests"):
        for folder in [ROOT / room, *(ROOT / room).rglob("*/")]:
            if "node_modules" in folder.parts or folder.name == "__pycache__":
                continue
            entries = [each for each in folder.iterdir() if each.name not in ("__init__.py", "__pycache__")]
            assert len(entries) <= MOST_ENTRIES, f"{name(folder)} holds {len(entries)}"
