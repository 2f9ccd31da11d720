"""schemathesis against a running fleet: nothing answers what the description does not promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.kit.fleets.served import served

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# What is "not now" or "the server did not" is no bug of ours: documented where it can be, and nowhere else.
# Coverage of POST bodies, 2,700 of 3,400 cases, takes a minute; the tests of the contract know those bodies.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504"]

[[operations]]
include-method = "POST"
phases.coverage.enabled = false
"""
COMMAND = Path(sys.executable).parent / "schemathesis"


def fuzz(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    words = ["--config-file", str(config), "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS)]
    limits = ["--phases", "coverage,fuzzing", "--max-examples", "4", "--request-timeout", "30", "--seed", "1"]
    command = [str(COMMAND), *words, *limits, "--no-color"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


async def test_no_answer_that_is_not_documented(tmp_path: Path) -> None:
    async with served("a", "b") as fleet:
        done = await trio.to_thread.run_sync(fuzz, fleet.url, tmp_path)  # pytest-timeout limits it
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout
