"""What we override of a package that does not promise it may be another thing in its next release."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from inspect import getmembers, isclass, isfunction
from pathlib import Path
from sys import stdlib_module_names

ROOT = Path(__file__).parent.parent
ROOMS = ("fleet", "actors", "web")


def ours() -> Iterator[type]:
    """Every class of the product."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if path.name != "__main__.py":
                yield from (each for _, each in getmembers(import_module(name), isclass) if each.__module__ == name)


def overridden() -> dict[str, set[str]]:
    """Names with an underscore that belong to a package and that we define anew, by the package's first name."""
    found: dict[str, set[str]] = defaultdict(set)
    for mine in ours():
        private = {name for name, part in vars(mine).items() if re.match("_[^_]", name) and isfunction(part)}
        for base in mine.__mro__[1:]:
            package = base.__module__.partition(".")[0]
            if package not in ROOMS and package not in stdlib_module_names:
                found[package] |= {f"{base.__name__}.{name}" for name in private & vars(base).keys()}
    return {package: names for package, names in found.items() if names}


def test_a_package_whose_private_parts_are_overridden_has_an_upper_bound() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounded = {re.split(r"[<>=~!\[ ]", each)[0].replace("-", "_").lower() for each in wanted if "<" in each}
    assert {package: names for package, names in overridden().items() if package not in bounded} == {}


def test_what_is_looked_for_is_found() -> None:
    assert "H11Protocol" in {name.partition(".")[0] for name in overridden()["hypercorn"]}
