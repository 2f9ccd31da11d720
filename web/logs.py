"""Log output: one line per event, as text or JSON. Never a prompt: only fields that the code names are written."""

from __future__ import annotations

import logging
import sys
import time

import orjson

from web.logring import LogRing, fields


def _moment(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`, control characters escaped so that nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {name}={_plain(value)}" for name, value in fields(record).items())
        line = f"{_moment(record)} {record.levelname:<7} {record.name}: {_plain(record.getMessage())}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _moment(record), "level": record.levelname, "logger": record.name}
        line |= {"message": record.getMessage(), **fields(record)}  # type: ignore[dict-item]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def configure_logging(level: str, style: str) -> None:
    """Send everything to stderr in the chosen style, and into a ring; third-party chatter from WARNING up only."""
    handler = logging.StreamHandler(sys.stderr)
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
