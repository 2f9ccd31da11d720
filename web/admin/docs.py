"""The API described: OpenAPI, and a page for people."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("docs", "The API described.")
