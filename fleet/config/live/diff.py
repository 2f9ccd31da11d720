"""Changes of a running configuration: what differs, what a request may change, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_jsonable_python

from fleet.config.live.effective import REDACTED
from fleet.config.live.restart_keys import KEYS, Effect, effect_of, value_at
from fleet.config.loading.key_matching import KeyMatcher
from fleet.config.loading.layers import PORT_NAMES, Loaded, at, overlaid, without
from fleet.config.loading.sourced_value import SourcedValue, from_python, nested
from fleet.config.schema.model import Config
from fleet.config.schema.problems import ConfigError, Problem
from fleet.config.schema.servers import ServerSpec
from fleet.config.schema.urls import normalise_url
from fleet.security import redaction

SOURCE: Final = "admin API"
FILE_ONLY: Final = ("reload.directory",)
"""Keys that no request may change: they bound what requests may do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs. The values are plain JSON, secrets redacted; a server is named by its id."""

    path: str
    before: Any
    after: Any

    @property
    def effect(self) -> Effect:
        """When it acts."""
        return effect_of(self.path)


def diff(before: Config, after: Config) -> list[Change]:
    """Every key that differs, in the order of the model; servers by id, each whole or by its own keys."""
    found: list[Change] = []
    for path in KEYS:
        old, new = value_at(before, path), value_at(after, path)
        if path == "servers":
            found += _servers(old, new)
        elif old != new:
            found.append(Change(path, _shown(old), _shown(new)))
    return found


def amended(current: Loaded, mapping: Mapping[str, object], *, source: str = SOURCE) -> tuple[Loaded, SourcedValue]:
    """`current` with `mapping` on top, and what of it really changes something (servers apart).

    A redacted secret stays as it is. Raises `ConfigError`.
    """
    fitter = KeyMatcher(None)
    layer = fitter.section(from_python(mapping, source), Config)
    if isinstance(layer.value, dict):
        layer = _kept(_one_port(layer, current), current.given, "", fitter.problems)
    new = overlaid(current, layer, fitter.problems, source=source)
    changed = {path for path in KEYS if value_at(new.config, path) != value_at(current.config, path)}
    what = "can be changed in the file only, because it bounds what requests may do"
    problems = [Problem(path, what, source) for path in FILE_ONLY if path in changed]
    if problems:
        raise ConfigError(problems)
    return new, only(layer, changed)


def is_redacted(value: object) -> bool:
    """Whether somebody sends back what some answer of ours has shown instead of a secret."""
    return value in (REDACTED, redaction.REDACTED)


def servers_layer(loaded: Loaded, specs: Iterable[ServerSpec]) -> SourcedValue:
    """A layer with these servers; those that are as `loaded` has them keep what was written. Empty if all are."""
    wanted = tuple(specs)
    old = loaded.config.servers
    if wanted == old:
        return SourcedValue({}, SOURCE)
    nodes = loaded.given.value["servers"].value if old else ()
    written = {spec.id: (spec, node) for spec, node in zip(old, nodes, strict=True)}
    items = [_server(spec, *written.get(spec.id, (None, None))) for spec in wanted]
    return SourcedValue({"servers": SourcedValue(items, SOURCE)}, SOURCE)


def _servers(old: tuple[ServerSpec, ...], new: tuple[ServerSpec, ...]) -> Iterator[Change]:
    before, after = {spec.id: spec for spec in old}, {spec.id: spec for spec in new}
    for name in [*before, *(each for each in after if each not in before)]:
        mine, theirs = before.get(name), after.get(name)
        if mine is None or theirs is None:
            yield Change(f"servers.{name}", _shown(mine), _shown(theirs))
            continue
        for field in ServerSpec.model_fields:
            one, other = getattr(mine, field), getattr(theirs, field)
            if one != other:
                yield Change(f"servers.{name}.{field}", _shown(one), _shown(other))


def _shown(value: Any) -> Any:
    return to_jsonable_python(value, by_alias=True)  # secrets come out as stars


def _one_port(layer: SourcedValue, current: Loaded) -> SourcedValue:
    """A client that sends everything back with one of the port's two names changed means the one that it changed."""
    now = current.config.orchestrator_port
    ports = {name: port for name in PORT_NAMES if (port := at(layer, name)) is not None}
    same = [name for name, port in ports.items() if port.value == now]
    return without(layer, same[0]) if len(ports) == 2 and len(same) == 1 else layer


def _kept(given: SourcedValue, current: SourcedValue | None, path: str, problems: list[Problem]) -> SourcedValue:
    """`given` with every redacted secret replaced by what it stands for."""
    if isinstance(given.value, dict):
        children = current.value if current is not None and isinstance(current.value, dict) else {}
        _same_machine(given, current, path, problems)
        return SourcedValue(
            {key: _kept(child, children.get(key), _join(path, key), problems) for key, child in given.value.items()},
            given.source,
        )
    if isinstance(given.value, list):
        known = current.value if current is not None and isinstance(current.value, list) else []
        items = [_kept(each, _match(each, at, known), _join(path, at), problems) for at, each in enumerate(given.value)]
        return SourcedValue(items, given.source)
    if not is_redacted(given.value):
        return given
    if current is None or isinstance(current.value, dict | list):
        problems.append(Problem(path, "is redacted, and there is nothing that it could stand for", given.source))
        return given
    return current


def _match(given: SourcedValue, index: int, known: list[SourcedValue]) -> SourcedValue | None:
    """What an element of a list was before: by its id or name, or else by its place."""
    if not isinstance(given.value, dict):
        return known[index] if index < len(known) else None
    for key in ("id", "name"):
        if key in given.value:
            mine = given.value[key].value
            return next((each for each in known if _child(each, key) == mine), None)
    return None


def _same_machine(given: SourcedValue, current: SourcedValue | None, path: str, problems: list[Problem]) -> None:
    """Who changes where a server is must know its key, or the key could be sent anywhere."""
    if (
        is_redacted(_child(given, "api_key"))
        and current is not None
        and "url" in given.value
        and _place(given) != _place(current)
    ):
        problems.append(Problem(_join(path, "api_key"), "must be given again, because the URL changes", given.source))


def _place(server: SourcedValue) -> object:
    url = _child(server, "url")
    try:
        return normalise_url(str(url))
    except ValueError:
        return url


def _child(given: SourcedValue, key: str) -> object:
    child = given.value.get(key) if isinstance(given.value, dict) else None
    return None if child is None else child.value


def _join(path: str, step: object) -> str:
    return f"{path}.{step}" if path else str(step)


def only(layer: SourcedValue, wanted: set[str]) -> SourcedValue:
    """A layer's keys among `wanted`, without servers."""
    paths = [path.split(".") for path in KEYS if path in wanted and path != "servers"]
    kept = [(path, node) for path in paths if (node := at(layer, path)) is not None]
    return nested(iter(kept), layer.source)


def _server(spec: ServerSpec, old: ServerSpec | None, written: SourcedValue | None) -> SourcedValue:
    if written is not None and spec == old:
        return written
    plain = from_python(spec.model_dump(exclude={"api_key"}, exclude_defaults=True), SOURCE).value
    if spec.api_key is not None:
        plain["api_key"] = SourcedValue(spec.api_key.get_secret_value(), SOURCE)
        if written is not None and old is not None and old.api_key == spec.api_key:
            plain["api_key"] = written.value["api_key"]
    return SourcedValue(plain, SOURCE)
