"""The `fleet` command. Its version is told before anything is loaded that only the rest of the command line needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point."""
    if sys.argv[1:] == ["--version"]:
        from web.http.version import own_version

        print(f"fleet {own_version()}")
        return
    from web.cli.main import main as run

    run()
