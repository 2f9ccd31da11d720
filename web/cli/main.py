"""The command line: serve, check, sim, status, keys, export.

Exit codes: 0 done; 1 failed (`status`: not running or not healthy; `serve`: the fleet crashed); 2 wrong usage or
configuration; 3 a port is taken; 70 a shutdown hung, so the process was ended from outside its event loop.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from web.cli.export import export
from web.cli.keys import keys
from web.process import hangup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actors.config.sources import Origin
    from fleet.config import Config

# Each command imports what it needs when it runs: all of it takes a second of CPU, and --version should not.
OK: Final = 0
FAILED: Final = 1
BAD_CONFIG: Final = 2
PORT_TAKEN: Final = 3

# \b: what follows, up to the next empty line, is printed as it stands.
_EPILOG: Final = """\b
Examples:
  fleet serve --demo                                three simulated servers and a trickle of traffic
  FLEET_SERVERS=http://gpu1:11434 fleet serve       no file needed
  fleet check --config config.yml --probe           what is in effect, from where, and do the servers answer
  fleet status                                      what answers on the configured ports
  FLEET_URL=https://fleet.lan:5100 fleet status     how a fleet is that runs elsewhere
  fleet sim --port 11500                            one simulated Ollama
  fleet keys add ci --role client                   a new API key, for security.keys_file
  fleet export alerts fleet-alerts.yml              rules for Prometheus, dashboards for Grafana

\b
Environment:
  FLEET_CONFIG         the file, as --config
  FLEET_URL            whom `status` asks, as --url
  FLEET_TOKEN          an API key for `status`; or --token-file
  FLEET_SECTION__KEY   any setting, such as FLEET_QUEUE__MAX_SIZE

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
    Path | None,
    typer.Option(
        "--config", "-c", envvar="FLEET_CONFIG", help="YAML file; default config.yml if there is one.", dir_okay=False
    ),
]


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """One endpoint for many Ollama servers."""
    if show_version:
        from importlib.metadata import version

        typer.echo(f"fleet {version('fleet-for-ollama')}")
        raise typer.Exit(OK)


@app.command(epilog="Example: fleet serve --config config.yml    Example: FLEET_SERVERS=http://gpu1:11434 fleet serve")
def serve(
    config: ConfigFile = None,
    demo: Annotated[bool, typer.Option("--demo", help="Three simulated servers and a trickle of traffic.")] = False,
) -> None:
    """Start the fleet. Exit code 2: bad configuration; 3: a port is taken."""
    from web.cli import configuration

    found = configuration.configured(config, {"servers": []} if demo else {})
    configuration.refuse_unsafe(found.config)
    _refuse_untraceable(found.config)
    configure_logging(found.config.logging.level, found.config.logging.format)
    source = configuration.source_of(config)
    with _where_we_listen_first(found.warnings):
        code = _run(found.config, source, None if demo else found.origin(config), demo=demo)
    raise typer.Exit(code)


@app.command(epilog="Example: fleet check --config config.yml --probe")
def check(
    config: ConfigFile = None,
    probe: Annotated[bool, typer.Option("--probe", help="Ask each server for its version, too.")] = False,
) -> None:
    """Validate the configuration, print it with the source of each value, and say ok. Exit code 2: it is not.

    With --probe, exit code 1: a server does not answer.
    """
    from fleet.config import report
    from web.cli import configuration
    from web.cli.probe import probed

    found = configuration.configured(config)
    typer.echo(report(found.reading.loaded))
    found.warn()
    configuration.refuse_unsafe(found.config)
    _refuse_untraceable(found.config)
    _refuse_unusable_tls(found.config)
    _refuse_unusable_keys(found.config)
    if probe and (silent := probed(found.config, typer.echo)):
        typer.echo(f"not ok: {silent} of {len(found.config.servers)} servers do not answer as an Ollama does")
        raise typer.Exit(FAILED)
    typer.echo("ok")


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
    from web.simulator.cli import run_sim

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
def status(
    config: ConfigFile = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", envvar="FLEET_URL", help="Ask this fleet, such as https://fleet.lan:5100; no file is read."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with an API key; without one, FLEET_TOKEN.", dir_okay=False),
    ] = None,
) -> None:
    """Say what runs on the configured ports and whether it is healthy. Exit code 1: something is not."""
    from web.cli.status import status_of

    raise typer.Exit(status_of(config, url, token_file, typer.echo))


def configure_logging(level: str, style: str) -> None:
    """How the running fleet logs: see `web.process.log_format`."""
    from web.process import log_format

    log_format.configure_logging(level, style)


@contextmanager
def _where_we_listen_first(warnings: Iterable[str]) -> Iterator[None]:
    """Log lines wait for a moment until the fleet has said where it listens; `web.serve` lets them go then."""
    from web.process import log_format

    log_format.hold()
    try:
        log_format.warn("fleet.config", warnings)
        yield
    finally:
        log_format.release()


def _refuse_untraceable(config: Config) -> None:
    if not config.otel.endpoint:
        return
    from actors.observability.tracing import why_not

    if reason := why_not(config):
        typer.echo(f"fleet: otel.endpoint: {reason}", err=True)
        raise typer.Exit(BAD_CONFIG)


def _refuse_unusable_tls(config: Config) -> None:
    from actors.config.tls import TlsUnusable, secured

    try:
        secured(config)
    except TlsUnusable as error:
        typer.echo(f"fleet: {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def _refuse_unusable_keys(config: Config) -> None:
    from actors.security.key_file import KeysUnusable, read

    path = config.security.keys_file
    try:
        if path and Path(path).exists():  # `fleet keys add` makes it
            read(path)
    except KeysUnusable as error:
        typer.echo(f"fleet: security.keys_file: {path} {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def _run(config: Config, source: str = "defaults", origin: Origin | None = None, *, demo: bool) -> int:
    from actors.config.tls import TlsUnusable
    from web.process.bind import HostUnusable, PortTaken
    from web.process.private_listener import NoPlace

    try:
        if demo:
            from web.cli.demo import run_demo

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
    if "serve" not in sys.argv[1:2]:
        app()
        return
    hangup.bear()
    try:
        app()
    finally:
        hangup.ignore()
