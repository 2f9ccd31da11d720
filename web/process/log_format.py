"""Log output: one line per event, as text or JSON. Never a prompt: only fields that the code names are written."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Final, TextIO

import orjson

from fleet.common.times import iso_read
from web.process.hangup import BearingHandler
from web.process.log_buffer import LogRing, fields, scrubbed

MOST_HELD: Final = 1000
"""Lines that are held back; more, and all are written."""


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`, control characters escaped so that nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {name}={_plain(value)}" for name, value in fields(record).items())
        line = f"{iso_read(record.created)} {record.levelname:<7} {record.name}: {_plain(record.getMessage())}{extra}"
        return f"{line}\n{scrubbed(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": iso_read(record.created), "level": record.levelname, "logger": record.name}
        told = {name: _safe(value) for name, value in fields(record).items()}
        line |= {"message": scrubbed(record.getMessage()), **told}  # type: ignore[dict-item]
        if record.exc_info:
            line["exception"] = scrubbed(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()


def _safe(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else scrubbed(str(value))


def _plain(value: object) -> str:
    text = scrubbed(str(value))
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


class PatientHandler(BearingHandler):
    """Can hold lines back for a moment, so that what a reader looks for comes first; errors never wait."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._held: list[logging.LogRecord] = []
        self._longest = 0.0

    def hold(self, seconds: float) -> None:
        """From now on, until `let_go`, an error, or a line that comes `seconds` after the first that was held."""
        self._longest = seconds

    def let_go(self) -> None:
        """Write what was held back."""
        self._longest = 0.0
        held, self._held = self._held, []
        for record in held:
            super().emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or keep it for later."""
        waited = record.created - (self._held[0] if self._held else record).created
        if record.levelno < logging.ERROR and waited < self._longest and len(self._held) < MOST_HELD:
            self._held.append(record)
            return
        self.let_go()
        super().emit(record)


def hold(seconds: float = 30.0) -> None:
    """Hold back what is logged, for that long at the most; `release` is to follow, whatever happens."""
    for handler in _patient():
        handler.hold(seconds)


def release() -> None:
    """Write what was held back, if anything was."""
    for handler in _patient():
        handler.let_go()


def warn(name: str, warnings: Iterable[str]) -> None:
    """Log what was found before there was a log."""
    for warning in warnings:
        logging.getLogger(name).warning("%s", warning)


def _patient() -> list[PatientHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, PatientHandler)]


def configure_logging(level: str, style: str) -> None:
    """Send everything to stderr in the chosen style, and into a ring; third-party chatter from WARNING up only."""
    handler = PatientHandler(sys.stderr)
    handler.setFormatter(_formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler, LogRing.installed()]
    root.setLevel(logging.WARNING)
    _set_level(level)


def adjust(level: str, style: str) -> None:
    """Another level and style for what `configure_logging` has set up; handlers of others stay as they are."""
    _set_level(level)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, TextFormatter | JsonFormatter):
            handler.setFormatter(_formatter(style))


def _formatter(style: str) -> logging.Formatter:
    return JsonFormatter() if style == "json" else TextFormatter()


def _set_level(level: str) -> None:
    for ours in ("fleet", "actors", "web"):
        logging.getLogger(ours).setLevel(level)
