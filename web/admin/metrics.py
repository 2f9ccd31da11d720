"""Figures per server and model, over real spans of time."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("metrics", "Figures.")
