"""Sections about what is kept, and what runs in the background: the store, jobs, the configuration itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fleet.config.schema.listeners import FilePath, possible_path
from fleet.config.schema.types import Bytes, Says, Seconds, Section, Whole

StoreUrl = Annotated[
    str,
    Field(max_length=4096, pattern=r"^(|sqlite:///[^\x00-\x1F\x7F]+)$"),
    AfterValidator(possible_path),
    Says("empty, or sqlite:/// and a path, none of its names longer than 255 bytes"),
]


class StoreSection(Section):
    """Where state is kept that shall survive a restart."""

    enabled: bool = Field(True, description="Whether anything is kept over a restart.")
    url: StoreUrl = Field(
        "",
        description="sqlite:///relative/or//absolute/path of the database; empty = data/fleet.db beside the "
        "configuration file.",
    )
    audit_lines: Whole = Field(10_000, ge=0, le=10_000_000, description="Changes remembered in the audit log.")


class HistorySection(Section):
    """What is kept of finished requests: who asked for what, where it went, how long it took. Never a word of text."""

    enabled: bool = Field(True, description="Whether finished requests are kept.")
    url: StoreUrl = Field(
        "",
        description="sqlite:///relative/or//absolute/path of the database; empty = data/history.db beside the "
        "configuration file.",
    )
    keep_days: Whole = Field(7, ge=1, le=3650, description="Days for which each request is kept; sums stay longer.")
    keep_bytes: Bytes = Field(2**30, description="Bytes of the file, from which on the oldest requests go earlier.")


class JobsSection(Section):
    """Background work on models: pulls, copies, warm-ups, unloads, deletions."""

    per_server: Whole = Field(2, ge=1, le=100, description="Jobs that run on one server at one time.")
    total: Whole = Field(16, ge=1, le=1000, description="Jobs that run in the whole fleet at one time.")
    waiting: Whole = Field(1000, ge=1, le=100_000, description="Jobs that may wait for their turn; more are refused.")
    keep: Whole = Field(500, ge=0, le=100_000, description="Finished jobs that are remembered.")
    load_timeout: Seconds = Field(600.0, description="Longest time a warm-up may take, in seconds.")


class ReloadSection(Section):
    """How the configuration file is followed while the fleet runs."""

    watch: bool = Field(True, description="Whether a change of the file takes effect by itself.")
    directory: FilePath = Field(
        "", description="The only directory that the admin API may read and write files in; empty = the file's own."
    )
