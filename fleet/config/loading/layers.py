"""Loading: defaults, then the file, then the environment, then flags; every problem at once, every value's source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from fleet.config.loading.environment import read_environment
from fleet.config.loading.key_matching import KeyMatcher
from fleet.config.loading.sourced_value import SourcedValue, from_python, merged, nested, scalar
from fleet.config.loading.validation_errors import checked
from fleet.config.loading.yaml_reader import read_json, read_text
from fleet.config.schema.introspection import leaves
from fleet.config.schema.model import Config
from fleet.config.schema.problems import ConfigError, Problem
from fleet.config.schema.receivers import misdirected
from fleet.config.schema.servers import ServerSpec

PORT_NAMES = (("port",), ("server", "orchestrator_port"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from: `origins` has every dotted path."""

    config: Config
    origins: dict[str, str]
    given: SourcedValue = field(repr=False)


def load(text: str | None, env: Mapping[str, str], flags: Mapping[str, object], *, source: str) -> Loaded:
    """The configuration from a file's text (None = no file), the environment, and flags by dotted path.

    `source` names the file in messages. A flag whose value is None was not given. Raises `ConfigError` with all
    problems of all layers.
    """
    problems: list[Problem] = []
    file = _file(text, source, problems)
    tree, strange = read_environment(env)
    given = ((path.split("."), _flag(path, value)) for path, value in flags.items() if value is not None)
    fitter = KeyMatcher(env, problems)
    fitted = [fitter.section(layer, Config) for layer in (file, tree, nested(given, "flag"))]
    # A variable that some env:NAME asks for has a meaning, even if its name begins like ours.
    problems += [each for each in strange if each.path not in fitter.referred]
    return _loaded(fitted, problems, source)


def amend(loaded: Loaded, changes: Mapping[str, object], *, source: str) -> Loaded:
    """`loaded` with `changes` (a mapping like the file, partial) on top; for the admin API.

    References to the environment are refused in `changes`: whoever sends a request must not read our secrets.
    Raises `ConfigError`.
    """
    fitter = KeyMatcher(None)
    layer = fitter.section(from_python(changes, source), Config)
    return overlaid(loaded, layer, fitter.problems, source=source)


def overlaid(loaded: Loaded, layer: SourcedValue, problems: list[Problem], *, source: str) -> Loaded:
    """`loaded` with a layer on top that has the model's own names. Raises `ConfigError`, `problems` included."""
    return _loaded([loaded.given, layer], problems, source)


def file_layer(text: str | None, env: Mapping[str, str], *, source: str) -> SourcedValue:
    """What the file alone says, under the model's own names; references to the environment keep their `raw` text.

    Raises `ConfigError` if it cannot be a configuration of the fleet.
    """
    problems: list[Problem] = []
    fitter = KeyMatcher(env, problems)
    layer = fitter.section(_file(text, source, problems), Config)
    if problems:
        raise ConfigError(problems)
    return layer


def over(base: SourcedValue, top: SourcedValue) -> SourcedValue:
    """`top` over `base`, where the two names of one port count as one: a later layer wins under either."""
    if any(top.source_of(name) for name in PORT_NAMES):
        for name in PORT_NAMES:
            base = without(base, name)
    return merged(base, top)


def parse_server(mapping: Mapping[str, object], *, source: str = "") -> ServerSpec:
    """One server from a request. Raises `ConfigError` with every problem; env:NAME is refused as in `amend`."""
    fitter = KeyMatcher(None)
    given = fitter.section(from_python(mapping, source), ServerSpec)
    return checked(given, ServerSpec, fitter.problems)


def _file(text: str | None, source: str, problems: list[Problem]) -> SourcedValue:
    try:
        if text is None:
            return SourcedValue({}, source)
        return read_json(text, source) if source.endswith(".json") else read_text(text, source)
    except ConfigError as error:
        problems += error.problems
        return SourcedValue({}, source)


def _flag(path: str, value: object) -> SourcedValue:
    source = f"flag {path}"
    return scalar(value, source) if isinstance(value, str) else from_python(value, source)


def _loaded(layers: Iterable[SourcedValue], problems: list[Problem], source: str) -> Loaded:
    given = reduce(over, layers, SourcedValue({}, source))
    config = checked(given, Config, problems)
    found_at = {path: given.source_of(path.split(".")) for path, _, _ in leaves(config)}
    port, other = (".".join(name) for name in PORT_NAMES)  # two names of one thing
    found_at[port] = found_at[other] = found_at[port] or found_at[other]
    origins = {path: where or "default" for path, where in found_at.items()}
    if found := misdirected(config):
        raise ConfigError([Problem(path, what, origins[path]) for path, what in found])
    return Loaded(config, origins, given)


def at(given: SourcedValue, path: Sequence[str]) -> SourcedValue | None:
    """What stands at `path` in a tree of sections; None if nothing does."""
    for step in path:
        child = given.value.get(step) if isinstance(given.value, dict) else None
        if child is None:
            return None
        given = child
    return given


def without(given: SourcedValue, path: Sequence[str]) -> SourcedValue:
    """The tree without what stands at `path`, nor a section that is empty for it."""
    if at(given, path) is None:
        return given
    rest = {key: child for key, child in given.value.items() if key != path[0]}
    if len(path) > 1 and (inner := without(given.value[path[0]], path[1:])).value:
        rest[path[0]] = inner
    return SourcedValue(rest, given.source)
