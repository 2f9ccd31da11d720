"""The models of one server: list, pull to, copy to, delete from."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("servermodels", "What one server holds.")
