"""The `fleet` command. Its version is told before anything is loaded that only the rest of the command line needs."""

from __future__ import annotations

import gc
import sys
from typing import Final

_THRESHOLD: Final = 50_000
"""Objects after which garbage is looked for. What is loaded at the start is none, and by Python's own measure it would
be looked over again and again, for a tenth of the start. Who serves sets another once all is loaded."""


def main() -> None:
    """Entry point."""
    gc.set_threshold(_THRESHOLD)
    if sys.argv[1:] == ["--version"]:
        from web.http.version import own_version

        print(f"fleet {own_version()}")
        return
    from web.cli.main import main as run

    run()
