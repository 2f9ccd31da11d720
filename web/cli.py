"""The command line: serve, check, sim, status, keys, export.

Exit codes: 0 done; 1 failed (`status`: not running or not healthy; `serve`: the fleet crashed); 2 wrong usage or
configuration; 3 a port is taken; 70 a shutdown hung, so the process was ended from outside its event loop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer

from fleet.config import Config, ConfigError, Loaded, load, report, unsafe_listener
from web.cli_export import export
from web.cli_keys import keys
from web.layers import Origin, Reading
from web.logs import configure_logging

OK: Final = 0
FAILED: Final = 1
BAD_CONFIG: Final = 2
PORT_TAKEN: Final = 3

_DEFAULT_CONFIG: Final = "config.yml"

# \b: what follows, up to the next empty line, is printed as it stands.
_EPILOG: Final = """\b
Examples:
  fleet serve --demo                                three simulated servers and a trickle of traffic
  FLEET_SERVERS=http://gpu1:11434 fleet serve       no file needed
  fleet check --config config.yml                   what is in effect, and where each value came from
  fleet status                                      what answers on the configured ports
  fleet sim --port 11500                            one simulated Ollama
  fleet keys add ci --role client                   a new API key, for security.keys_file
  fleet export alerts fleet-alerts.yml              rules for Prometheus, dashboards for Grafana

\b
Exit codes:
  0   done
  1   failed (status: not running or not healthy; serve: the fleet crashed)
  2   wrong usage or configuration
  3   a port is taken
  70  a shutdown hung and was cut short
"""

app = typer.Typer(
    name="fleet",
    help="One endpoint for many Ollama servers.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(keys, name="keys")
app.add_typer(export, name="export")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; default config.yml if there is one.", dir_okay=False)
]


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """One endpoint for many Ollama servers."""
    if show_version:
        typer.echo(f"fleet {version('fleet-for-ollama')}")
        raise typer.Exit(OK)


@app.command(epilog="Example: fleet serve --config config.yml    Example: FLEET_SERVERS=http://gpu1:11434 fleet serve")
def serve(
    config: ConfigFile = None,
    demo: Annotated[bool, typer.Option("--demo", help="Three simulated servers and a trickle of traffic.")] = False,
) -> None:
    """Start the fleet. Exit code 2: bad configuration; 3: a port is taken."""
    reading = _reading(config, {"servers": []} if demo else {})
    loaded = reading.loaded
    _refuse_unsafe(loaded.config)
    _refuse_untraceable(loaded.config)
    configure_logging(loaded.config.logging.level, loaded.config.logging.format)
    raise typer.Exit(_run(loaded.config, _source(config), None if demo else _origin(config, reading), demo=demo))


@app.command(epilog="Example: fleet check --config config.yml")
def check(config: ConfigFile = None) -> None:
    """Validate the configuration and print it with the source of each value. Exit code 2: every problem is listed."""
    loaded = _load(config, {})
    typer.echo(report(loaded))
    _refuse_unsafe(loaded.config)
    _refuse_untraceable(loaded.config)
    _refuse_unusable_tls(loaded.config)
    _refuse_unusable_keys(loaded.config)


@app.command(
    epilog="Example: fleet sim --port 11500 --models llama3:8b:4.7GB,nomic-embed-text:latest:274MB --slots 4 "
    "--fault status:503@0.1"
)
def sim(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on the loopback address; 0: any free one.")],
    id: Annotated[str, typer.Option("--id", help="Name shown in logs and answers.")] = "sim",
    models: Annotated[str, typer.Option(help="name:tag:size,... (sizes like 4.7GB).")] = (
        "llama3:8b:4.7GB,nomic-embed-text:latest:274MB"
    ),
    slots: Annotated[int, typer.Option(min=1, max=4096, help="Parallel requests per model.")] = 4,
    vram: Annotated[int, typer.Option(min=1, help="Video memory in bytes.")] = 24 * 10**9,
    tokens_per_second: Annotated[float, typer.Option(min=0.01, help="Decode rate per slot.")] = 50.0,
    prefill_per_second: Annotated[float, typer.Option(min=0.01, help="Prompt tokens per second.")] = 1000.0,
    load_seconds: Annotated[float, typer.Option(min=0.0, help="Time to load a model.")] = 2.0,
    fault: Annotated[list[str] | None, typer.Option("--fault", help="KIND[:ARG], may be given several times.")] = None,
) -> None:
    """Serve one simulated Ollama. Everything it says is labelled as simulated."""
    from web.sim.cli import run_sim

    code = run_sim(
        port=port,
        id=id,
        models=models,
        slots=slots,
        vram=vram,
        tokens_per_second=tokens_per_second,
        prefill_per_second=prefill_per_second,
        load_seconds=load_seconds,
        faults=fault or [],
    )
    raise typer.Exit(code)


@app.command(epilog="Example: fleet status --config config.yml")
def status(config: ConfigFile = None) -> None:
    """Say what runs on the configured ports and whether it is healthy. Exit code 1: something is not."""
    from web.status import report_status

    raise typer.Exit(OK if report_status(_load(config, {}).config, typer.echo) else FAILED)


def load_or_exit(path: Path | None) -> Loaded:
    """The configuration in the file, or the default one; exit code 2 with every problem on a line of its own."""
    return _load(path, {})


def _origin(path: Path | None, reading: Reading) -> Origin:
    """What the running fleet needs to read its configuration again, and to save it."""
    file = path or Path(_DEFAULT_CONFIG)
    return Origin(file.absolute(), str(file), os.environ, {}, reading)


def _load(path: Path | None, flags: Mapping[str, object]) -> Loaded:
    """The configuration, or exit code 2 with every problem on a line of its own."""
    return _reading(path, flags).loaded


def _reading(path: Path | None, flags: Mapping[str, object]) -> Reading:
    try:
        text, source = _read(path)
        return Reading(source, text, load(text, os.environ, flags, source=source))
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(f"fleet: {problem}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def _file(path: Path | None) -> Path | None:
    """The file to read: the one asked for, else config.yml if there is one."""
    return path or (Path(_DEFAULT_CONFIG) if Path(_DEFAULT_CONFIG).is_file() else None)


def _source(path: Path | None) -> str:
    return str(_file(path) or f"defaults (there is no {_DEFAULT_CONFIG} here)")


def _read(path: Path | None) -> tuple[str | None, str]:
    path = _file(path)
    if path is None:
        return None, "defaults"
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"fleet: cannot read the configuration file {path}: {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def _refuse_unsafe(config: Config) -> None:
    if problem := unsafe_listener(config):
        typer.echo(f"fleet: {problem}", err=True)
        raise typer.Exit(BAD_CONFIG)


def _refuse_untraceable(config: Config) -> None:
    if not config.otel.endpoint:
        return
    from actors.tracing import why_not

    if reason := why_not(config):
        typer.echo(f"fleet: otel.endpoint: {reason}", err=True)
        raise typer.Exit(BAD_CONFIG)


def _refuse_unusable_tls(config: Config) -> None:
    from web.serve import secured
    from web.tls import TlsUnusable

    try:
        secured(config)
    except TlsUnusable as error:
        typer.echo(f"fleet: {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def _refuse_unusable_keys(config: Config) -> None:
    from web.keyfile import KeysUnusable, read

    path = config.security.keys_file
    try:
        if path and Path(path).exists():  # `fleet keys add` makes it
            read(path)
    except KeysUnusable as error:
        typer.echo(f"fleet: security.keys_file: {path} {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def _run(config: Config, source: str = "defaults", origin: Origin | None = None, *, demo: bool) -> int:
    from web.bind import HostUnusable, PortTaken
    from web.inner import NoPlace
    from web.tls import TlsUnusable

    try:
        if demo:
            from web.demo import run_demo

            return run_demo(config, typer.echo, source=source)
        from web.serve import run

        return run(config, typer.echo, source=source, origin=origin)
    except PortTaken as error:
        typer.echo(f"fleet: {error}", err=True)
        return PORT_TAKEN
    except (HostUnusable, NoPlace, TlsUnusable) as error:
        typer.echo(f"fleet: {error}", err=True)
        return BAD_CONFIG


def main() -> None:
    """Entry point of the `fleet` command."""
    app()
