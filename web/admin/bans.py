"""Who is kept away from traffic: bans by somebody, cooldowns by the fleet itself."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("bans", "Bans and cooldowns.")
