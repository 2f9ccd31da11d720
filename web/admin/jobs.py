"""Background work: list, look, cancel, follow."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("jobs", "Background work on models.")
