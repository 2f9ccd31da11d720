"""The shape of the house, enforced: layers, purity, sizes, and which folder may know which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"fleet": 0, "actors": 1, "web": 2}
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


# ---- what the fleets of one process share

OF_THE_PROCESS = {
    "web/process/hangup.py _came": "signals come to a process, and before there is a fleet",
    "web/process/log_buffer.py _scrubbers": "a process has one log, in which no fleet's secrets may stand",
    "web/security/request_gate.py _numbers": "numbers that tell requests apart: nothing can be seen in them",
}
"""State that lies in a module, and why it is not a fleet's."""

PURE_CACHES = {
    "actors/observability/alert_webhook.py _trust": "the certificates this machine believes; nobody changes it",
    "actors/upstream/control_call.py _trust": "likewise",
    "web/admin/docs_page.py _document": "made of routes that are fixed once they are imported; it is only written out",
    "web/admin/role_enforcement.py table": "likewise; read-only",
    "web/http/version.py own_version": "a text",
    "web/security/cross_origin.py _allowed": "tuples made of tuples",
}
"""Functions that remember what they answered, and why two fleets may be given the same."""

MUTABLE = """
bytearray count cycle defaultdict deque dict list local set Counter OrderedDict Random Recent
CapacityLimiter Condition ContextVar Event Lock Mailbox ParkingLot Queue RLock Semaphore
WeakKeyDictionary WeakSet WeakValueDictionary
"""
CHANGES = "add append appendleft clear discard extend keep pop popitem remove setdefault sort update"
DISPLAYS = ast.List | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp


def last_name(node: ast.expr) -> str:
    return ast.unparse(node).partition("(")[0].rpartition(".")[2]


def is_table(node: ast.Assign | ast.AnnAssign, names: set[str]) -> bool:
    """Whether this gives a name to what nobody means to change: it says so, and is full from the start."""
    full = not isinstance(node.value, ast.Dict | ast.List) or ast.unparse(node.value) not in ("{}", "[]")
    annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
    return full and (names == {"__all__"} or annotation.startswith(("Final", "Mapping", "ClassVar[Mapping")))


def changed_names(tree: ast.AST) -> set[str]:
    """The names of what is changed in place somewhere in a module, and of what is bound anew from within a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        target: ast.expr | None = None
        if isinstance(node, ast.Global):
            found |= set(node.names)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES.split():
            target = node.func.value
        if isinstance(target, ast.Name):
            found.add(target.id)
    return found


def shared_state(path: Path) -> Iterator[str]:
    """What a module holds, for itself or in a class, that somebody could change."""
    tree = ast.parse(path.read_text())
    changed = changed_names(tree)
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for node in (each for body in bodies for each in body if isinstance(each, ast.Assign | ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        calls = {last_name(each.func) for each in ast.walk(node.value or node) if isinstance(each, ast.Call)}
        if calls & {
            "field",
            "Field",
            "Table",
        }:  # made for each instance; a text of SQL's
            continue
        open_ended = isinstance(node.value, DISPLAYS) and not is_table(node, names)
        if node.value is not None and (open_ended or calls & set(MUTABLE.split()) or names & changed):
            yield from (f"{name(path)} {each}" for each in names)


def caches(path: Path) -> Iterator[str]:
    """The functions of a module that remember what they answered."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and {"cache", "lru_cache"} & set(map(last_name, node.decorator_list)):
            yield f"{name(path)} {node.name}"
        elif isinstance(node, ast.Assign) and "lru_cache(" in ast.unparse(node.value):
            yield f"{name(path)} {ast.unparse(node.targets[0])}"


def test_no_module_holds_what_one_fleet_could_see_of_another() -> None:
    modules = [path for path in SOURCES if not name(path).startswith("fleet/")]
    assert {each for path in modules for each in shared_state(path)} == set(OF_THE_PROCESS)
    assert {each for path in modules for each in caches(path)} == set(PURE_CACHES)


# ---- who may write what

RECORDS = {
    # in actors/
    "breaker": "a machine that its actor drives; the registry keeps its settings and its birth",
    "budget": "the retry budget's two limits follow the configuration",
    "cancel_scope": "a deadline",
    "_cell": "what outlives a crash of its actor",
    "cell": "likewise",
    "connection": "of SQLite",
    "contents": "of the store, as it was opened",
    "context": "of TLS",
    "error": "what an exception says to the client is put in the client's words",
    "_hearing": "what an exchange has heard about its request so far",
    "holder": "a lease, as the pool sees it",
    "job": "written by the board and by the task that does it",
    "lane": "a rate group, as the feed keeps it",
    "lease": "written by the exchange that holds it",
    "_logger": "of the library",
    "memory": "what outlives the dispatcher",
    "metrics": "limits that follow the configuration",
    "reading": "a deadline",
    "response": "one answer on its way",
    "_rest": "a deadline",
    "same": "a job",
    "series": "limits that follow the configuration",
    "_servers": "leases are counted where they begin and end",
    "servers": "likewise",
    "standing": "how the store is, written by its actor",
    "state": "one server, written by its actor, the membership and the dispatcher",
    "ticket": "settled by its waiter",
    "viewer": "one who watches, as the feed keeps it",
    # in web/
    "app": "Quart's",
    "body": "Quart makes it, without knowing what holds for it",
    "chunks": "one answer in the making",
    "config": "Hypercorn's",
    "down": "one answer on its way",
    "end": "what a signal means for the fleet, told by the one task that hears them",
    "exchange": "one request of the simulator's",
    "failure": "what an exception says to the client",
    "fault": "a row of the simulator's book, as it is read and used up",
    "head": "a request's, as it is read",
    "host": "the simulated server: what it has open",
    "_host": "likewise",
    "life": "a deadline",
    "made": "of the Prometheus client",
    "model": "sums in the making",
    "run": "of the simulator's, before it begins",
    "seen": "one request, as the simulator remembers it",
    "session": "one client's, kept alone by who posts",
    "stream": "of Hypercorn",
    "timer": "of the standard library",
    "url_map": "of Werkzeug",
}
"""Whose attributes others may assign, by the name it goes by: data, or not ours; never parts that were wired once."""


def outer_assignments(path: Path) -> Iterator[tuple[int, str, str]]:
    """Where an attribute of something but `self` is assigned: the line, what it is an attribute of, its name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            of = node.value
            name_of = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else "?"
            if name_of not in ("self", "cls"):
                yield node.lineno, name_of, node.attr


def test_parts_are_wired_by_constructor_and_never_after() -> None:
    """A callback or a part that is put into another's attribute later cannot be found by reading where it is made."""
    found = [
        (f"{name(path)}:{line}", of, attribute)
        for path in SOURCES
        if not name(path).startswith("fleet/")
        for line, of, attribute in outer_assignments(path)
    ]
    assert [each for each in found if each[1] not in RECORDS] == []
    assert set(RECORDS) == {of for _, of, _ in found}, "a line of the table is of no use"


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
    for room in (*ROOMS, "tests"):
        for folder in [ROOT / room, *(ROOT / room).rglob("*/")]:
            if "node_modules" in folder.parts or folder.name == "__pycache__":
                continue
            entries = [each for each in folder.iterdir() if each.name not in ("__init__.py", "__pycache__")]
            assert len(entries) <= MOST_ENTRIES, f"{name(folder)} holds {len(entries)}"
