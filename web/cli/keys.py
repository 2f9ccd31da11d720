"""`fleet keys`: make, list and revoke API keys, in the file that a running fleet follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

_EPILOG: Final = """\b
Examples:
  fleet keys add ci --role client       prints the new key, once
  fleet keys list                       names, roles, moments; never a key
  fleet keys revoke ci                  within a second nobody gets in with it

\b
Exit codes:
  0   done
  1   failed (no such key; the file cannot be written)
  2   wrong usage, configuration, or a file of keys that cannot be used
"""

keys = typer.Typer(help="API keys, in security.keys_file.", epilog=_EPILOG, no_args_is_help=True, rich_markup_mode=None)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="FLEET_CONFIG", help="YAML file; default config.yml if there is one.", dir_okay=False
    ),
]
File = Annotated[
    Path | None, typer.Option("--file", "-f", help="The file of keys; default security.keys_file.", dir_okay=False)
]
Name = Annotated[str, typer.Argument(help="What the audit log calls whoever uses the key.")]


@keys.command(epilog="Example: fleet keys add ci --role client")
def add(
    name: Name,
    role: Annotated[
        str, typer.Option(help="client: use models; operator: run the fleet; admin: change it.")
    ] = "client",
    config: Config = None,
    file: File = None,
) -> None:
    """Make a key and print it, this once: only its digest is kept."""
    from web.cli import key_commands as key_ring

    key_ring.add(name, role, config, file)


@keys.command("list", epilog="Example: fleet keys list")
def show(config: Config = None, file: File = None) -> None:
    """List the keys of the file: names, roles, when they were made and revoked."""
    from web.cli import key_commands as key_ring

    key_ring.show(config, file)


@keys.command(epilog="Example: fleet keys revoke ci")
def revoke(name: Name, config: Config = None, file: File = None) -> None:
    """Revoke a key. A running fleet refuses it within a second; requests that run already go on."""
    from web.cli import key_commands as key_ring

    key_ring.revoke(name, config, file)
