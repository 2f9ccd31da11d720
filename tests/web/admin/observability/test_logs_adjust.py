"""Level and style of the log change while it is written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from web.process import log_format


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What our own handler writes, on loggers that are afterwards as before."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in ("fleet", "actors", "web")]
    levels = [each.level for each in ours]
    text = io.StringIO()
    handler, foreign = logging.StreamHandler(text), logging.StreamHandler(io.StringIO())
    handler.setFormatter(log_format.TextFormatter())
    root.addHandler(handler)
    root.addHandler(foreign)
    yield text
    assert foreign.formatter is None  # handlers of others stay as they are
    root.removeHandler(handler)
    root.removeHandler(foreign)
    for each, level in zip(ours, levels, strict=True):
        each.setLevel(level)


def test_level_and_style_follow(written: io.StringIO) -> None:
    log = logging.getLogger("fleet.test")
    log_format.adjust("WARNING", "text")
    log.info("unheard")
    log.warning("heard")
    log_format.adjust("INFO", "json")
    log.info("now")
    first, second = written.getvalue().splitlines()
    assert first.endswith("WARNING fleet.test: heard")
    assert json.loads(second)["message"] == "now"
