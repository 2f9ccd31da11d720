"""The shape of the house, enforced: who holds state that others could see, and who may write what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.kit.suite.sources import SOURCES, name

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
