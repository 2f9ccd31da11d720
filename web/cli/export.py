"""`fleet export`: dashboards for Grafana, rules and a configuration for Prometheus, made for the operator's fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.config import Config as Settings

_EPILOG: Final = """\b
Examples:
  fleet export grafana dashboards/             three dashboards, to be imported or provisioned
  fleet export alerts fleet-alerts.yml         rules for Prometheus, with the thresholds of the configuration
  fleet export prometheus > prometheus.yml     a configuration that scrapes this fleet

\b
Exit codes:
  0   done
  1   a file is there already and differs (--force), or cannot be written
  2   wrong usage or configuration
"""

export = typer.Typer(
    help="Files for Grafana and Prometheus.", epilog=_EPILOG, no_args_is_help=True, rich_markup_mode=None
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="FLEET_CONFIG", help="YAML file; default config.yml if there is one.", dir_okay=False
    ),
]
File = Annotated[Path | None, typer.Argument(help="Where to write it; nothing or - prints it.", dir_okay=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace files that differ.")]


@export.command(epilog="Example: fleet export grafana /var/lib/grafana/dashboards")
def grafana(
    directory: Annotated[Path, typer.Argument(help="Where to write them; made if it is missing.", file_okay=False)],
    force: Force = False,
) -> None:
    """Write the dashboards: fleet-overview.json, fleet-server.json, fleet-model.json. The same for every fleet."""
    from fleet.observability.grafana.dashboards import files

    _write({directory / name: text for name, text in files().items()}, force)


@export.command(epilog="Example: fleet export alerts /etc/prometheus/fleet-alerts.yml --docs https://wiki/fleet")
def alerts(
    file: File = None,
    config: Config = None,
    docs: Annotated[str | None, typer.Option(help="Where docs/ is published, for the runbook_url of alerts.")] = None,
    dashboards: Annotated[
        str | None, typer.Option(help="Where Grafana's dashboards are, such as https://grafana/d.")
    ] = None,
    force: Force = False,
) -> None:
    """Write the rules for Prometheus: alerts with the thresholds under `alerts`, and what dashboards need."""
    from fleet.observability.prometheus.rule_files import DASHBOARDS, DOCS, rules

    _print_or_write(file, rules(_settings(config).alerts, docs or DOCS, dashboards or DASHBOARDS), force)


@export.command(epilog="Example: fleet export prometheus /etc/prometheus/prometheus.yml")
def prometheus(file: File = None, config: Config = None, force: Force = False) -> None:
    """Write a configuration for Prometheus that scrapes this fleet's metrics port and loads fleet-alerts.yml."""
    from fleet.observability.prometheus.rule_files import scraping

    settings = _settings(config)
    if not settings.server.metrics_port:
        raise _failed("server.metrics_port is 0, any free port: give it a number first", 2)
    _print_or_write(file, scraping(settings), force)


def _settings(path: Path | None) -> Settings:
    from web.cli.configuration import load_or_exit

    return load_or_exit(path).config


def _print_or_write(file: Path | None, text: str, force: bool) -> None:
    if file is None or str(file) == "-":
        typer.echo(text, nl=False)
    else:
        _write({file: text}, force)


def _write(files: Mapping[Path, str], force: bool) -> None:
    """All or, when one of them is somebody's own by now, none. Exit code 1: not written."""
    try:
        there = {} if force else {path: text for path, text in files.items() if path.exists()}
        differing = [str(path) for path, text in there.items() if path.read_bytes() != text.encode()]
        if differing:
            raise _failed(f"there already, and different: {', '.join(differing)}; --force replaces them")
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            typer.echo(f"fleet: {path} written", err=True)
    except OSError as error:
        raise _failed(f"{error.filename} cannot be written: {error.strerror}") from None


def _failed(message: str, code: int = 1) -> typer.Exit:
    typer.echo(f"fleet: {message}", err=True)
    return typer.Exit(code)
