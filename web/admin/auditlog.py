"""Who changed what, when, from where."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("audit", "Who changed what.")
