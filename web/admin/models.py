"""Models across the fleet: where they are, loading, unloading, what to load next."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("models", "Models across the fleet.")
