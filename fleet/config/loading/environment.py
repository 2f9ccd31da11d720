"""Settings from environment variables: `FLEET_SECTION__KEY`, `FLEET_SERVERS` and `LOG_LEVEL`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from fleet.config.loading.sourced_value import SourcedValue, nested, scalar
from fleet.config.loading.yaml_reader import read_text
from fleet.config.schema.introspection import Shape, shapes_of, spellings
from fleet.config.schema.model import Config
from fleet.config.schema.problems import ConfigError, Problem, nearest, shown
from fleet.config.schema.servers import ServerSpec

PREFIX: Final = "FLEET_"
RESERVED: Final = frozenset({"FLEET_CONFIG", "FLEET_TOKEN", "FLEET_URL"})
"""Read by the command line, not part of the configuration."""
# Kubernetes and old Docker links announce a service called "fleet" like this in every container; it is not for us.
SERVICE_LINK: Final = re.compile(r"FLEET_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*)")
LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://")
IPV6: Final = re.compile(r"\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[^\]]*)?\]")
BETWEEN_SERVERS: Final = re.compile(r"[,;\s]+")


def variable_names() -> dict[str, tuple[tuple[str, ...], Shape]]:
    """Every environment variable of the configuration, with the path and the shape of what it sets."""
    return dict(_names(Config, ()))


def read_environment(env: Mapping[str, str]) -> tuple[SourcedValue, list[Problem]]:
    """The tree of all settings in `env`, and a problem for every `FLEET_` variable that means nothing.

    An empty variable counts as not set, because that is what container files make of a missing one.
    """
    known = variable_names()
    entries: list[tuple[tuple[str, ...], SourcedValue]] = []
    problems: list[Problem] = []
    if env.get("LOG_LEVEL"):
        entries.append((("logging", "level"), scalar(env["LOG_LEVEL"], "environment LOG_LEVEL")))
    for name in sorted(_ours(env)):
        if name in known:
            path, shape = known[name]
            entries.append((path, _value(env[name], shape, f"environment {name}", problems)))
        else:
            hint = nearest(name, known)
            problems.append(Problem(shown(name)[1:-1], f"unknown environment variable{hint}", "environment"))
    return nested(iter(entries), "environment"), problems


def _ours(env: Mapping[str, str]) -> Iterator[str]:
    for name, value in env.items():
        if not name.startswith(PREFIX) or name in RESERVED or not value:
            continue
        link = SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and LINK_VALUE.match(value))
        if not link:
            yield name


def _names(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, tuple[tuple[str, ...], Shape]]]:
    shapes = shapes_of(model)
    for spelling, name in spellings(model).items():
        shape, inner = shapes[name], (*path, spelling)
        if shape.model is not None and not shape.many:
            yield from _names(shape.model, inner)
        elif spelling.islower():  # camelCase would only repeat itself in capitals
            yield PREFIX + "__".join(inner).upper(), (inner, shape)


def _value(text: str, shape: Shape, source: str, problems: list[Problem]) -> SourcedValue:
    if not shape.many:
        return scalar(text, source)
    bracketed = text.lstrip().startswith("[")
    if shape.model is ServerSpec and (not bracketed or IPV6.match(text.lstrip())):
        # no URL has a space, a comma or a semicolon there
        return SourcedValue([SourcedValue(part, source, part) for part in BETWEEN_SERVERS.split(text) if part], source)
    if bracketed:
        return SourcedValue(_flow(text, source, problems), source)
    return SourcedValue([scalar(part.strip(), source) for part in text.split(",") if part.strip()], source)


def _flow(text: str, source: str, problems: list[Problem]) -> list[SourcedValue]:
    """A list in brackets, as JSON or YAML writes it."""
    try:
        found: list[SourcedValue] = read_text(f"list: {text}", source).value["list"].value
    except ConfigError as error:
        problems += [Problem(source.split()[-1], each.message, source) for each in error.problems]
        return []
    return found
