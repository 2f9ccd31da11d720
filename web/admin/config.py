"""The configuration: look, change, reload, save."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("config", "The configuration.")
