"""The last log records, kept in memory for the admin API."""

from __future__ import annotations


class LogRing:
    """A bounded ring of structured records."""
