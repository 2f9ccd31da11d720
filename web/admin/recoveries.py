"""Failures and recoveries of servers, and what breakers made of them."""

from __future__ import annotations

from web.admin.topic import Topic

topic = Topic("recoveries", "Failures and recoveries.")
