"""The last log records, without a word of any prompt."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("logs", "The last log records.")
