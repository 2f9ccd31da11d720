"""A model of one Ollama server: loads, slots, queues, evictions, keep-alives and tokens, without any clock."""

from __future__ import annotations

from fleet.simulator.files import ModelFile, Shelf, model_file
from fleet.simulator.foreign import ForeignClient
from fleet.simulator.keepalive import BadDuration, go_duration, keep_alive_seconds
from fleet.simulator.naming import InvalidName, name_key, short_name
from fleet.simulator.parsing import parse_models, parse_size
from fleet.simulator.profile import Profile
from fleet.simulator.requests import Ask, BadOption, embedding_work, work_for
from fleet.simulator.rows import details, ps_rows, rfc3339, tags_rows
from fleet.simulator.runner import Runner
from fleet.simulator.server import Busy, SimServer
from fleet.simulator.text import answer, count_tokens, embedding
from fleet.simulator.work import JobFailure, RunnerOptions, SimulatedJob, Stage, Stats, Work, stats_of

__all__ = [
    "Ask",
    "BadDuration",
    "BadOption",
    "Busy",
    "ForeignClient",
    "InvalidName",
    "JobFailure",
    "ModelFile",
    "Profile",
    "Runner",
    "RunnerOptions",
    "Shelf",
    "SimServer",
    "SimulatedJob",
    "Stage",
    "Stats",
    "Work",
    "answer",
    "count_tokens",
    "details",
    "embedding",
    "embedding_work",
    "go_duration",
    "keep_alive_seconds",
    "model_file",
    "name_key",
    "parse_models",
    "parse_size",
    "ps_rows",
    "rfc3339",
    "short_name",
    "stats_of",
    "tags_rows",
    "work_for",
]  # fmt: skip
